"""The two TensorRT libraries that share one Python API (torch-free, imports neither until asked).

Sources: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/ and
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/_static/python-api/
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

from step.errors import StepError

Flavour = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")

_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_EXTRAS: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}


def load_flavour(flavour: Flavour) -> Any:
    """Imports a TensorRT library.

    Raises:
        StepError: it is not installed, or its shared libraries do not load.
    """
    install = f"pip install 'step-trt[{_EXTRAS[flavour]}]'"
    try:
        module: ModuleType = importlib.import_module(_MODULES[flavour])
    except ModuleNotFoundError as error:
        raise StepError(f"{flavour} is not installed (no module {error.name}); {install}") from error
    except (ImportError, OSError) as error:
        raise StepError(f"{flavour} is installed but does not load: {error}; reinstall it: {install}") from error
    return module


def needs_typing_flag(flavour: Flavour, version: str) -> bool:
    """Whether a network has to be told to be strongly typed: TensorRT 10; later ones and RTX always are."""
    return flavour == "tensorrt" and int(version.split(".")[0]) < 11


def make_logger(trt: Any, tell: Callable[[str, str], None]) -> Any:
    """A logger that prints nothing and tells severity and text of every message."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the library's own way of being told where messages go
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            tell(severity.name, message)

    return Logger()
