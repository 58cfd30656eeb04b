"""What NVIDIA GPUs and which driver this machine has.

Sources: https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html and
https://pypi.org/project/nvidia-ml-py/ (NVML: the driver's own account).
"""

import ctypes
import sys
import uuid
from dataclasses import dataclass

import pynvml

from step.errors import ArgumentError, StepError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: as in --device cuda:N.
        name: as the driver calls it.
        capability: compute capability, as "sm89".
        memory_bytes: in all.
        uuid: as NVML and nvidia-smi -L have it, "GPU-..."; they may count GPUs in another order than CUDA.
    """

    index: int
    name: str
    capability: str
    memory_bytes: int
    uuid: str


def cuda_driver_is_present() -> bool:
    """Whether NVIDIA's driver library can be loaded."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True


def driver_version() -> str | None:
    """Version of the NVIDIA driver, as "580.65.06"; None without one."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def list_gpus() -> list[Gpu]:
    """The GPUs that CUDA programs see (CUDA_VISIBLE_DEVICES applies).

    Raises:
        StepError: no driver, one that is too old, or cuda-bindings is not installed.
    """
    if not cuda_driver_is_present():
        raise StepError(f"this machine has no NVIDIA driver ({_LIBRARY} cannot be loaded)")
    try:
        from cuda.bindings import runtime as cudart
    except ImportError as error:
        raise StepError(f"cuda-bindings is not installed ({error}); pip install 'step-trt[tensorrt]'") from error
    status, count = cudart.cudaGetDeviceCount()
    if status == cudart.cudaError_t.cudaErrorNoDevice:
        return []
    if status != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(status)
        version = driver_version() or "unknown"
        raise StepError(
            f"the NVIDIA driver (version {version}) cannot be used: {text.decode()}; update the driver, "
            "or for a driver of CUDA 12: pip install 'cuda-bindings<13'"
        )
    gpus: list[Gpu] = []
    for index in range(count):
        status, properties = cudart.cudaGetDeviceProperties(index)
        if status != cudart.cudaError_t.cudaSuccess:
            _, text = cudart.cudaGetErrorString(status)
            raise StepError(f"GPU {index} cannot be used: {text.decode()}; look at nvidia-smi")
        name = properties.name.decode().strip("\0")
        capability = f"sm{properties.major}{properties.minor}"
        identity = f"GPU-{uuid.UUID(bytes=bytes(properties.uuid.bytes))}"
        gpus.append(Gpu(index, name, capability, properties.totalGlobalMem, identity))
    return gpus


def find_gpu(device: str) -> Gpu:
    """The GPU that "auto", "cuda" (the first) or "cuda:N" means.

    Raises:
        StepError: there is none such.
    """
    gpus = list_gpus()
    index = int(device.partition(":")[2] or 0)
    if index >= len(gpus):
        have = ", ".join(f"cuda:{gpu.index}" for gpu in gpus) or "none"
        raise ArgumentError(f"`device` is {device}; this machine has {have}")
    return gpus[index]
