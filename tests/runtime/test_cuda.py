"""CUDA's calls, and that the GPU of the other tests has the names that the real libraries have."""

import pytest
from fake_gpu import FakeContext, FakeCuda, FakeEngine, FakeRuntimeConfig
from step_runtime.backends.cuda import Cuda, CudaRuntime

from step import StepError


def test_the_fake_has_the_library_s_names():
    """What the backend calls on the fake exists in the real library."""
    trt = pytest.importorskip("tensorrt_rtx")
    for fake, real in (
        (FakeEngine, trt.ICudaEngine),
        (FakeContext, trt.IExecutionContext),
        (FakeRuntimeConfig, trt.IRuntimeConfig),
    ):
        public = {name for name in vars(fake) if not name.startswith("_")} - {
            "trt",
            "cache",
            "strategy",
            "concrete_shape",
        }
        assert public <= set(dir(real)), fake
    assert {"deserialize_cuda_engine", "engine_host_code_allowed"} <= set(dir(trt.Runtime))
    assert {"serialize", "deserialize"} <= set(dir(trt.IRuntimeCache))
    assert trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE != trt.CudaGraphStrategy.DISABLED
    assert trt.ExecutionContextAllocationStrategy.USER_MANAGED
    assert all(hasattr(trt.DataType, name) for name in ("UINT8", "HALF", "FLOAT", "INT64"))


def test_the_fake_has_the_gpu_s_methods():
    methods = {name for name in vars(Cuda) if not name.startswith("_")}
    assert methods == {name for name in vars(CudaRuntime) if not name.startswith("_")}
    assert methods <= set(vars(FakeCuda))


def test_cuda_bindings_take_our_arguments(monkeypatch):
    """Without a driver every call fails in CUDA, not in the bindings' conversion of what it is given."""
    pytest.importorskip("cuda.bindings")
    from cuda.bindings import runtime as cudart

    if cudart.cudaGetDeviceCount()[0] == cudart.cudaError_t.cudaSuccess:
        pytest.skip("a GPU is here: these handles are not real")
    monkeypatch.setattr(CudaRuntime, "activate", lambda _self: None)
    cuda = CudaRuntime(0)
    monkeypatch.undo()
    calls = {
        "activate": (),
        "allocate": (100,),
        "free": (1 << 20,),
        "allocate_pinned": (100,),
        "free_pinned": (1 << 20,),
        "create_stream": (),
        "destroy_stream": (5,),
        "create_event": (),
        "create_timed_event": (),
        "elapsed_ms": (5, 6),
        "destroy_event": (5,),
        "upload": (1 << 20, 1 << 21, 8, 5),
        "download": (1 << 20, 1 << 21, 8, 5),
        "copy": (1 << 20, 1 << 21, 8, 5),
        "record": (5, 6),
        "wait": (5, 6),
        "synchronize_event": (5,),
        "synchronize_stream": (5,),
        "begin_capture": (5,),
        "end_capture": (5,),
        "launch": (5, 6),
        "destroy_graph": (5,),
    }
    assert set(calls) == {name for name in vars(Cuda) if not name.startswith("_")}
    for name, arguments in calls.items():
        with pytest.raises(StepError, match="CUDA failed on GPU 0 while .*cudaErrorInsufficientDriver"):
            getattr(cuda, name)(*arguments)
