"""TensorRT plugins for the operators of domain `step`, and the same kernels for PyTorch.

Needs NumPy alone until a kernel is compiled (cuda-bindings and NVRTC), registered (tensorrt) or run in PyTorch (torch).
"""

from step_plugins import class_nms, roi_align
from step_plugins.errors import PluginError
from step_plugins.registration import find_problem, register

OPERATORS = (roi_align.NAME, class_nms.NAME)
"""Names of the operators, in domain and plugin namespace `step`."""

__all__ = ["OPERATORS", "PluginError", "class_nms", "find_problem", "register", "roi_align"]
