"""Checks CUDA's calls, and that the GPU of the other tests has the names that the real libraries have."""

import pytest
from fake_gpu import FakeContext, FakeCuda, FakeEngine, FakeRuntimeConfig
from step_runtime.backends.cuda import Cuda, CudaRuntime
from step_runtime.backends.gpus import cuda_driver_is_present

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


@pytest.fixture
def contexts(monkeypatch):
    """Stands in for the driver's stack of contexts of this thread, one primary context (100 + index) a GPU."""
    pytest.importorskip("cuda.bindings")
    from cuda.bindings import driver

    ok = driver.CUresult.CUDA_SUCCESS
    stack: list[int] = []
    answers = {
        "cuInit": lambda _flags: (ok,),
        "cuDeviceGet": lambda index: (ok, index),
        "cuDevicePrimaryCtxRetain": lambda device: (ok, 100 + device),
        "cuCtxPushCurrent": lambda context: (stack.append(context), (ok,))[1],
        "cuGetErrorName": lambda status: (ok, status.name.encode()),
        "cuCtxPopCurrent": lambda: (ok, stack.pop()),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(driver, name, answer)
    return stack


def test_the_thread_s_gpu_is_what_it_was(contexts):
    """A program that uses GPU 0 itself calls us for GPU 1, and we call one another."""
    contexts.append(7)
    first, second = CudaRuntime(1), CudaRuntime(2)
    assert contexts == [7]
    with first.active():
        assert contexts[-1] == 101
        with second.active():
            assert contexts[-1] == 102
        assert contexts[-1] == 101
    with pytest.raises(KeyError), first.active():
        raise KeyError
    assert contexts == [7]


def test_a_gpu_that_cannot_be_chosen(contexts, monkeypatch):
    from cuda.bindings import driver

    refused = driver.CUresult.CUDA_ERROR_DEVICE_UNAVAILABLE
    monkeypatch.setattr(driver, "cuDevicePrimaryCtxRetain", lambda _device: (refused, None))
    with pytest.raises(
        StepError,
        match=r"CUDA failed on GPU 3 while choosing the GPU: CUDA_ERROR_DEVICE_UNAVAILABLE; look at nvidia-smi",
    ):
        CudaRuntime(3)


def test_no_driver():
    pytest.importorskip("cuda.bindings")
    if cuda_driver_is_present():
        pytest.skip("there is one")
    with pytest.raises(StepError, match="this machine has no NVIDIA driver"):
        CudaRuntime(0)


def test_cuda_bindings_take_our_arguments(contexts):
    """Without a driver every call fails in CUDA, not in the bindings' conversion of what it is given."""
    from cuda.bindings import runtime as cudart

    if cudart.cudaGetDeviceCount()[0] == cudart.cudaError_t.cudaSuccess:
        pytest.skip("a GPU is here: these handles are not real")
    cuda = CudaRuntime(0)
    calls = {
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
    assert set(calls) == {name for name in vars(Cuda) if not name.startswith("_")} - {"active"}
    for name, arguments in calls.items():
        with pytest.raises(StepError, match="CUDA failed on GPU 0 while .*cudaErrorInsufficientDriver"):
            getattr(cuda, name)(*arguments)
