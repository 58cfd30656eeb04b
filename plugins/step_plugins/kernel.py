"""A kernel as it is compiled and launched: the same object serves TensorRT, PyTorch and the tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from step_plugins.errors import PluginError
from step_plugins.nvrtc import compile_ptx

CeilDiv = Callable[[Any, int], Any]
"""Division rounded up, of numbers or of TensorRT's symbolic sizes."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One variant of a kernel.

    Attributes:
        source: file in this package's `cuda` folder.
        entry: name of the kernel in it.
        defines: what is fixed at compile time.
        threads: of a block.
    """

    source: str
    entry: str
    defines: dict[str, str]
    threads: int

    def ptx(self) -> bytes:
        """See `step_plugins.nvrtc.compile_ptx`."""
        return compile_ptx(self.source, self.defines)


def ceil_div(dividend: int, divisor: int) -> int:
    """Division of sizes, rounded up."""
    return -(-dividend // divisor)


def float_literal(value: float) -> str:
    """A float32 constant of CUDA C++ with all its digits."""
    return f"{float(value)!r}f"


def require(condition: bool, message: str) -> None:
    """Raises:
    PluginError: with `message`, unless `condition` holds.
    """
    if not condition:
        raise PluginError(message)
