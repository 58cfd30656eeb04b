"""Checks what is said of GPUs and drivers, with CUDA's answers put in its mouth."""

import sys
from types import SimpleNamespace

import pynvml
import pytest
from step_runtime.backends import gpus
from step_runtime.backends.cuda import CudaRuntime
from step_runtime.backends.gpus import find_gpu, list_gpus
from step_runtime.benchmark.gpu_meter import GpuMeter

from step import StepError

cudart = pytest.importorskip("cuda.bindings.runtime")
driver = pytest.importorskip("cuda.bindings.driver")


@pytest.fixture
def two_gpus(monkeypatch):
    names = [(b"NVIDIA L4", 8, 9), (b"NVIDIA H200", 9, 0)]

    def properties(index):
        name, major, minor = names[index]
        return cudart.cudaError_t.cudaSuccess, SimpleNamespace(
            name=name,
            major=major,
            minor=minor,
            totalGlobalMem=24_000_000_000,
            uuid=SimpleNamespace(bytes=bytes(range(16 * index, 16 * index + 16))),
        )

    monkeypatch.setattr(gpus, "cuda_driver_is_present", lambda: True)
    monkeypatch.setattr(cudart, "cudaGetDeviceCount", lambda: (cudart.cudaError_t.cudaSuccess, len(names)))
    monkeypatch.setattr(cudart, "cudaGetDeviceProperties", properties)


@pytest.fixture
def a_driver(monkeypatch):
    """Is one that has every GPU that is asked for."""
    ok = driver.CUresult.CUDA_SUCCESS
    monkeypatch.setattr(driver, "cuInit", lambda _flags: (ok,))
    monkeypatch.setattr(driver, "cuDeviceGet", lambda index: (ok, index))
    monkeypatch.setattr(driver, "cuDevicePrimaryCtxRetain", lambda device: (ok, device))


def test_two_gpus(two_gpus):
    assert [(gpu.name, gpu.capability) for gpu in list_gpus()] == [("NVIDIA L4", "sm89"), ("NVIDIA H200", "sm90")]
    assert find_gpu("auto").index == find_gpu("cuda").index == 0
    assert find_gpu("cuda:1").capability == "sm90"
    assert find_gpu("cuda:1").uuid == "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"
    with pytest.raises(StepError, match="`device` is cuda:2; this machine has cuda:0, cuda:1"):
        find_gpu("cuda:2")


def test_a_driver_without_gpus(monkeypatch):
    monkeypatch.setattr(gpus, "cuda_driver_is_present", lambda: True)
    monkeypatch.setattr(cudart, "cudaGetDeviceCount", lambda: (cudart.cudaError_t.cudaErrorNoDevice, None))
    assert list_gpus() == []
    with pytest.raises(StepError, match="this machine has none"):
        find_gpu("cuda")


def test_a_driver_that_is_too_old(monkeypatch):
    status = cudart.cudaError_t.cudaErrorInsufficientDriver
    monkeypatch.setattr(gpus, "cuda_driver_is_present", lambda: True)
    monkeypatch.setattr(gpus, "driver_version", lambda: "470.1")
    monkeypatch.setattr(cudart, "cudaGetDeviceCount", lambda: (status, None))
    with pytest.raises(StepError, match=r"driver \(version 470\.1\) cannot be used: CUDA driver version"):
        list_gpus()


def test_no_driver(monkeypatch):
    monkeypatch.setattr(gpus, "cuda_driver_is_present", lambda: False)
    with pytest.raises(StepError, match=r"this machine has no NVIDIA driver \(libcuda.so.1 cannot be loaded\)"):
        list_gpus()


def test_out_of_memory(monkeypatch, a_driver):
    ok = cudart.cudaError_t.cudaSuccess
    monkeypatch.setattr(cudart, "cudaMalloc", lambda _size: (cudart.cudaError_t.cudaErrorMemoryAllocation, None))
    monkeypatch.setattr(cudart, "cudaMemGetInfo", lambda: (ok, 10_000_000, 24_000_000_000))
    with pytest.raises(StepError, match=r"GPU 1 is out of memory \(allocating 300\.0 MB; 10 of 24000 MB are free\)"):
        CudaRuntime(1).allocate(300_000_000)


def test_page_locked_memory_is_the_host_s(monkeypatch, a_driver):
    refused = cudart.cudaError_t.cudaErrorMemoryAllocation
    monkeypatch.setattr(cudart, "cudaHostAlloc", lambda _size, _flags: (refused, None))
    with pytest.raises(StepError, match=r"300\.0 MB of this machine's own memory cannot be page-locked for GPU 1"):
        CudaRuntime(1).allocate_pinned(300_000_000)


def test_a_lost_gpu(monkeypatch, a_driver):
    status = cudart.cudaError_t.cudaErrorIllegalAddress
    monkeypatch.setattr(cudart, "cudaEventSynchronize", lambda _event: (status,))
    with pytest.raises(StepError, match="GPU 0 while running the model: cudaErrorIllegalAddress .* may be lost"):
        CudaRuntime(0).synchronize_event(7)


def test_no_bindings(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(gpus, "cuda_driver_is_present", lambda: True)
    with pytest.raises(StepError, match=r"cuda-bindings is not installed .*pip install 'step-trt\[tensorrt\]'"):
        list_gpus()


def test_a_gpu_is_metered_by_its_uuid(two_gpus, monkeypatch):
    """CUDA's first GPU may be the driver's second: CUDA_VISIBLE_DEVICES, and the order by speed."""
    asked: list[str] = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda identity: asked.append(identity))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _handle: 5000)
    assert GpuMeter(1).energy_j() == 5.0
    assert asked == ["GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"]
    assert GpuMeter(2).energy_j() is None
