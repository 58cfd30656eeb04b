"""The library."""

import weakref
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from fake_gpu.context import FakeContext
from fake_gpu.cuda import FakeCuda
from fake_gpu.engine import FakeEngine, Logger

VERSION = "11.4.0.106"


@dataclass
class FakeTensorRT:
    """Is the `tensorrt` or `tensorrt_rtx` module, as far as the backend uses it.

    An engine file holds its ONNX file's path and its batch.

    Attributes:
        cuda: the GPU.
        refuse_capture: whether its engines fail while a stream is being recorded.
        loaded_caches: what was put into runtime caches.
        made_contexts: every execution context that was made; see `contexts`.
    """

    cuda: FakeCuda
    __name__ = "tensorrt"
    __version__: str = VERSION
    refuse_capture: bool = False
    loaded_caches: list[bytes] = field(default_factory=list)
    made_contexts: "list[weakref.ref[FakeContext]]" = field(default_factory=list)
    DataType = SimpleNamespace(UINT8="uint8", HALF="float16", FLOAT="float32", INT64="int64")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")

    class ILogger:
        """Is what the backend's logger derives from."""

    @property
    def contexts(self) -> list[FakeContext]:
        """The execution contexts that somebody still holds, in the order in which they were made."""
        return [context for made in self.made_contexts if (context := made()) is not None]

    def Runtime(self, logger: Logger) -> "FakeRuntime":  # noqa: N802 - the library's name
        """Makes what loads engines."""
        return FakeRuntime(self, logger)


@dataclass
class FakeRuntime:
    """Loads engine files."""

    trt: FakeTensorRT
    logger: Logger
    engine_host_code_allowed: bool = False

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        """Returns None for a damaged file, and logs that."""
        path, _, batch = plan.decode(errors="replace").partition("|")
        if not Path(path).is_file():
            self.logger.log(SimpleNamespace(name="ERROR"), "the plan is\ndamaged")
            return None
        return FakeEngine(self.trt, self.logger, Path(path), int(batch))
