"""TensorRT plugins for the operators of domain `step`, and the same kernels for PyTorch.

Needs NumPy alone until a kernel is compiled (cuda-bindings and NVRTC), registered (tensorrt) or run in PyTorch (torch).
"""

from step_plugins.errors import PluginError
from step_plugins.register import find_problem, register

__all__ = ["PluginError", "find_problem", "register"]
