"""Launching a compiled kernel on the GPU that PyTorch uses, through CUDA's driver API.

Source: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html
"""

import ctypes
from functools import cache
from typing import Any

from step_plugins.errors import PluginError
from step_plugins.kernel import Kernel

Argument = ctypes.c_void_p | ctypes.c_int
"""Of a kernel: an address on the GPU, or a size."""


def launch(
    kernel: Kernel, grid: tuple[int, int, int], arguments: tuple[Argument, ...], *, device: int, stream: int
) -> None:
    """Queues a kernel.

    Args:
        kernel: what to run; compiled and loaded the first time.
        grid: blocks along x, y, z.
        arguments: in the order of the kernel's own.
        device: index of the GPU, whose context has to be current.
        stream: CUDA's handle of it.

    Raises:
        PluginError: the driver refused; its own name for why is in the message.
    """
    if 0 in grid:
        return  # nothing to compute, and the driver takes no empty grid
    from cuda.bindings import driver

    function = _load(kernel.ptx(), kernel.entry, device)
    values = tuple(argument.value for argument in arguments)
    types = tuple(type(argument) for argument in arguments)
    (status,) = driver.cuLaunchKernel(function, *grid, kernel.threads, 1, 1, 0, stream, (values, types), 0)
    _check(driver, status, "cuLaunchKernel", kernel.entry)


@cache
def _load(ptx: bytes, entry: str, device: int) -> Any:  # noqa: ARG001 - a module belongs to one device's context
    """The kernel's handle; the driver compiles the PTX for its GPU. Loaded modules stay until the process ends."""
    from cuda.bindings import driver

    status, module = driver.cuModuleLoadData(ptx + b"\0")
    _check(driver, status, "cuModuleLoadData", entry)
    status, function = driver.cuModuleGetFunction(module, entry.encode())
    _check(driver, status, "cuModuleGetFunction", entry)
    return function


def _check(driver: Any, status: Any, call: str, entry: str) -> None:
    if status != driver.CUresult.CUDA_SUCCESS:
        raise PluginError(f"{call} of {entry} answered {status.name}; update the NVIDIA driver, or run without it")
