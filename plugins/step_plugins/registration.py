"""Making the plugins known to TensorRT, or saying why that cannot be."""

import re
from importlib import metadata
from typing import Any

import numpy as np

from step_plugins import class_nms
from step_plugins.driver import find_driver_problem
from step_plugins.errors import PluginError
from step_plugins.nvrtc import nvrtc_version

_DEFAULT_CUDA = 13  # of the extra `plugins`; others have an extra of their own
_FIRST_WITH_PLUGINS = (10, 9)  # of TensorRT, compiled ahead of time
# Earlier ones keep the expression builder of a network that is gone, which the next plugin's shapes may then use.
_FIRST_SOUND = (10, 15)
# Earlier ones call int() on an array of one attribute, which NumPy refuses from this version on.
_FIRST_FOR_NEW_NUMPY, _NEW_NUMPY = (11, 2), (2, 4)


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
    """Says why this TensorRT on this machine cannot use the plugins, and what to do; None where it can."""
    if trt.__name__ == "tensorrt_rtx":
        return "tensorrt-rtx takes no plugins"
    problem = _find_version_problem(trt)
    if problem is not None:
        return problem
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
    any_kernel = class_nms.kernel(max_boxes=1, score_threshold=0.5, iou_threshold=0.5, tactic=1)
    try:
        return find_driver_problem(any_kernel.ptx(), cuda12_extra="tensorrt-cu12")
    except PluginError as error:
        return str(error)


def _find_version_problem(trt: Any) -> str | None:
    """Finds what is wrong with TensorRT's version, by itself or together with NumPy's."""
    version = _major_minor(trt.__version__)
    wanted = f"install {'.'.join(map(str, _FIRST_SOUND))} or later"
    if version < _FIRST_WITH_PLUGINS or not hasattr(trt, "QuickPluginCreationRequest"):
        return f"tensorrt {trt.__version__} has no plugins compiled ahead of time; {wanted}"
    if version < _FIRST_SOUND:
        return f"tensorrt {trt.__version__} can crash when a process uses a second plugin; {wanted}"
    if version < _FIRST_FOR_NEW_NUMPY and _major_minor(np.__version__) >= _NEW_NUMPY:
        return (
            f"the plugins of tensorrt {trt.__version__} do not work with NumPy {np.__version__}; "
            "pip install 'numpy<2.4', or install tensorrt 11.2 or later"
        )
    return None


def _major_minor(version: str) -> tuple[int, ...]:
    """Reads 11.2 out of "11.2.0rc1", "11.2rc1" and "11.2.0.post1"; 11.0 out of "11"."""
    found = re.match(r"v?(\d+)(?:\.(\d+))?", version)
    return (0, 0) if found is None else (int(found[1]), int(found[2] or 0))


def _cuda_major(version: str) -> int | None:
    """Reads the installed TensorRT's CUDA off its wheel (tensorrt_cu13_bindings); None for other installations."""
    for distribution in metadata.distributions():
        name = re.fullmatch(r"tensorrt[_-]cu(\d+)[_-](?:bindings|libs)", (distribution.name or "").lower())
        if name and distribution.version == version:
            return int(name[1])
    return None
