"""Reading ONNX graphs that may be damaged, and how libraries fail on them (onnx and ONNX Runtime where called for)."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from step.errors import StepError

if TYPE_CHECKING:
    import onnx


def load_onnx(path: Path) -> "onnx.ModelProto":
    """A graph, which need not be a valid one.

    Raises:
        StepError: it cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise StepError(
            f"{path}: no ONNX graph that can be read: {one_line(error)}; export the bundle again"
        ) from error


@functools.cache
def onnxruntime_failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises of a graph or of the machine; each kind of failure is a class of its own."""
    import onnxruntime as ort

    found = vars(ort.capi.onnxruntime_pybind11_state).values()
    own = tuple(kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, UnicodeDecodeError)  # the last where its message repeats what is no text


def one_line(error: BaseException) -> str:
    """The first line of a library's message, or the kind of error where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
