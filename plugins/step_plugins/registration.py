"""Making the plugins known to TensorRT, or saying why that cannot be."""

import re
from importlib import metadata
from typing import Any

from step_plugins.errors import PluginError
from step_plugins.nvrtc import nvrtc_version

_DEFAULT_CUDA = 13  # of the extra `plugins`; others have an extra of their own
_FIRST_VERSION = (10, 8)  # of TensorRT, with plugins that are compiled ahead of time


def register(trt: Any) -> None:
    """Registers `step::TubeRoIAlign` and `step::ClassNms`, for every parser and network of this process.

    Calling it again changes nothing.

    Args:
        trt: the module `tensorrt`.

    Raises:
        PluginError: see `find_problem`.
    """
    problem = find_problem(trt)
    if problem is not None:
        raise PluginError(problem)
    from step_plugins.tensorrt_plugins import register_plugins

    register_plugins(trt)


def find_problem(trt: Any) -> str | None:
    """Why the plugins cannot be used with this TensorRT on this machine, and what to do; None where they can."""
    if trt.__name__ == "tensorrt_rtx":
        return "tensorrt-rtx takes no plugins"
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if version < _FIRST_VERSION or not hasattr(trt, "QuickPluginCreationRequest"):
        return f"tensorrt {trt.__version__} has no plugins compiled ahead of time; install 10.8 or later"
    try:
        nvrtc_major, _ = nvrtc_version()
    except PluginError as error:
        return str(error)
    cuda_major = _cuda_major(trt.__version__)
    if cuda_major is not None and cuda_major != nvrtc_major:
        return (
            f"NVRTC is of CUDA {nvrtc_major}, tensorrt {trt.__version__} of CUDA {cuda_major}; "
            f"pip install 'step-trt[plugins{'' if cuda_major == _DEFAULT_CUDA else f'-cu{cuda_major}'}]'"
        )
    return None


def _cuda_major(version: str) -> int | None:
    """Of the installed TensorRT, by the name of its wheel (tensorrt_cu13_bindings); None for other installations."""
    for distribution in metadata.distributions():
        name = re.fullmatch(r"tensorrt[_-]cu(\d+)[_-](?:bindings|libs)", (distribution.name or "").lower())
        if name and distribution.version == version:
            return int(name[1])
    return None
