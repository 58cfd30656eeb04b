"""Launching a compiled kernel on the GPU that PyTorch uses, through CUDA's driver API.

Source: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html
"""

import ctypes
from functools import cache
from typing import Any

from step_plugins.driver import find_driver_problem
from step_plugins.errors import PluginError
from step_plugins.kernel import Kernel

Argument = ctypes.c_void_p | ctypes.c_int
"""A kernel's argument: an address on the GPU, or a size."""


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
    function = load(kernel, device=device)
    from cuda.bindings import driver

    values = tuple(argument.value for argument in arguments)
    types = tuple(type(argument) for argument in arguments)
    (status,) = driver.cuLaunchKernel(function, *grid, kernel.threads, 1, 1, 0, stream, (values, types), 0)
    _check(driver, status, f"cuLaunchKernel of {kernel.entry}")


def load(kernel: Kernel, *, device: int) -> Any:
    """Returns the kernel's handle; the driver compiles its PTX for the GPU.

    Raises:
        PluginError: NVRTC or cuda-bindings is missing; the driver is older than the PTX, or refused it.
    """
    ptx = kernel.ptx()  # first, because it says what is not installed
    from cuda.bindings import driver

    _need_context(driver, device)
    return loaded_function(ptx, kernel.entry, device)


def _need_context(driver: Any, device: int) -> None:
    """The context that PyTorch and CUDA's runtime use has to be current in this thread, which may be new to CUDA."""
    status, context = driver.cuCtxGetCurrent()
    _check(driver, status, "cuCtxGetCurrent")
    if int(context) == 0:
        status, context = driver.cuDevicePrimaryCtxRetain(device)
        _check(driver, status, "cuDevicePrimaryCtxRetain")
        (status,) = driver.cuCtxSetCurrent(context)
        _check(driver, status, "cuCtxSetCurrent")


@cache
def loaded_function(ptx: bytes, entry: str, device: int) -> Any:  # noqa: ARG001 - a context's, so one device's
    """Loads PTX the first time; what is loaded stays until the process ends.

    Args:
        ptx: of the kernel.
        entry: its name.
        device: index of the GPU, whose context has to be current.

    Raises:
        PluginError: the driver is older than the PTX, or refused it.
    """
    from cuda.bindings import driver

    problem = find_driver_problem(ptx, cuda12_extra="plugins-torch-cu12")
    if problem is not None:
        raise PluginError(problem)
    status, module = driver.cuModuleLoadData(ptx + b"\0")
    _check(driver, status, f"cuModuleLoadData of {entry}")
    status, function = driver.cuModuleGetFunction(module, entry.encode())
    _check(driver, status, f"cuModuleGetFunction of {entry}")
    return function


def _check(driver: Any, status: Any, call: str) -> None:
    if status != driver.CUresult.CUDA_SUCCESS:
        raise PluginError(f"{call} answered {status.name}; update the NVIDIA driver")
