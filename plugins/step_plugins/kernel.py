"""A kernel as it is compiled and launched: the same object serves TensorRT, PyTorch and the tests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from step_plugins.errors import PluginError
from step_plugins.nvrtc import compile_ptx

CeilDiv = Callable[[Any, int], Any]
"""Division rounded up, of numbers or of TensorRT's symbolic sizes."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Describes one variant of a kernel.

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
        """See `step_plugins.nvrtc.compile_ptx`; kept in this process, too."""
        return ptx_of(self.source, tuple(self.defines.items()))


@cache
def ptx_of(source: str, defines: tuple[tuple[str, str], ...]) -> bytes:
    """Compiles once in a process; see `step_plugins.nvrtc.compile_ptx`."""
    return compile_ptx(source, dict(defines))


def ceil_div(dividend: int, divisor: int) -> int:
    """Divides sizes, rounded up."""
    return -(-dividend // divisor)


def float_literal(value: np.float32) -> str:
    """Writes a constant of CUDA C++ with all its digits."""
    return f"{float(value)!r}f"


def require(condition: object, message: str) -> None:
    """Raises:
    PluginError: with `message`, unless `condition` is true.
    """
    if not condition:
        raise PluginError(message)
