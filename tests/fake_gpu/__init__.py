"""A GPU and a TensorRT that record what they are told, and do it with ONNX Runtime on the CPU.

Nothing is done when it is asked for: work waits in its stream until the host synchronises, which is as late as a GPU
may be. A copy whose source was overwritten too early, or a result that was read too early, therefore shows.
"""

from fake_gpu.bundle_engines import add_fake_engines
from fake_gpu.context import FakeContext
from fake_gpu.cuda import GPU, FakeCuda
from fake_gpu.engine import FakeEngine
from fake_gpu.runtime_config import FakeRuntimeConfig
from fake_gpu.tensorrt import VERSION, FakeTensorRT

__all__ = [
    "GPU",
    "VERSION",
    "FakeContext",
    "FakeCuda",
    "FakeEngine",
    "FakeRuntimeConfig",
    "FakeTensorRT",
    "add_fake_engines",
]
