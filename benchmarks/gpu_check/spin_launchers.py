"""What puts the kernels of `spin_kernels` into a stream: of a GPU, or of the GPU that only records.

Source of the calls: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html
"""

import ctypes
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from gpu_check.spin_arithmetic import Words, digest, filled, mix, places
from gpu_check.spin_kernels import ENTRIES, THREADS, compile_kernels
from step.errors import StepError

_MOST_BLOCKS = 32  # along the words of a clip: enough to spread their reading and writing over time
_POINTERS = {"clear": 1, "digest": 2, "scribble": 2, "check": 2, "fill": 2, "spin": 0}
"""How many of a kernel's arguments are addresses; these come first, the ints after."""


class Launcher(Protocol):
    """Runs kernels of `spin_kernels` by name."""

    def launch(self, entry: str, arguments: tuple[int, ...], stream: int, *, words: int = 1, clips: int = 1) -> None:
        """Puts one kernel into a stream.

        Args:
            entry: which.
            arguments: addresses and numbers, in the order of the kernel's own.
            stream: CUDA's handle.
            words: that it reads or writes a clip.
            clips: of them; only where the kernel does clip by clip.

        Raises:
            StepError: the driver refuses.
        """


class GpuLauncher:
    """Is a `Launcher` on a GPU, to be made while the GPU is the calling thread's.

    Raises:
        StepError: NVRTC is not there, or the driver does not take its PTX.
    """

    def __init__(self) -> None:
        ptx = compile_kernels()
        from cuda.bindings import driver

        self._driver = driver
        self._module = self._check("cuModuleLoadData", driver.cuModuleLoadData(ptx + b"\0"))
        self._functions = {
            name: self._check("cuModuleGetFunction", driver.cuModuleGetFunction(self._module, name.encode()))
            for name in ENTRIES
        }

    def launch(self, entry: str, arguments: tuple[int, ...], stream: int, *, words: int = 1, clips: int = 1) -> None:
        """See `Launcher.launch`."""
        blocks = 1 if entry in ("clear", "spin") else min(_MOST_BLOCKS, -(-words // THREADS))
        threads = 1 if entry == "spin" else THREADS
        pointers = _POINTERS[entry]
        types = (ctypes.c_void_p,) * pointers + (ctypes.c_int,) * (len(arguments) - pointers)
        answer = self._driver.cuLaunchKernel(
            self._functions[entry], blocks, clips, 1, threads, 1, 1, 0, stream, (arguments, types), 0
        )
        self._check(f"cuLaunchKernel of {entry}", answer)

    def _check(self, call: str, answer: tuple[Any, ...]) -> Any:
        status, *values = answer
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise StepError(f"{call} answered {status.name}; update the NVIDIA driver if it does not know the PTX")
        return values[0] if values else None


class HostLauncher:
    """Is a `Launcher` with NumPy, in the queues of a GPU that only records.

    Args:
        enqueue: takes a stream and the work to be done when the stream comes to it.
    """

    def __init__(self, enqueue: Callable[[int, Callable[[], None]], None]) -> None:
        self._enqueue = enqueue

    def launch(self, entry: str, arguments: tuple[int, ...], stream: int, *, words: int = 1, clips: int = 1) -> None:
        """See `Launcher.launch`."""
        del words  # the arguments say so, too
        self._enqueue(stream, lambda: _KERNELS[entry](*arguments, clips))


def _at(address: int, words: int) -> Words:
    memory = (ctypes.c_uint32 * words).from_address(address)
    return np.frombuffer(memoryview(memory), dtype=np.uint32)


def _clear(digests: int, clips: int, salt: int, _clips: int) -> None:
    _at(digests, clips)[...] = salt


def _digest(source: int, digests: int, words: int, salt: int, _most_cycles: int, clips: int) -> None:
    found = digest(_at(source, clips * words).reshape(clips, words), salt)
    sums = _at(digests, clips)
    sums += found


def _scribble(digests: int, scratch: int, words: int, salt: int, _clips: int) -> None:
    _at(scratch, words)[...] = mix(_at(digests, 1) ^ places(words, salt))


def _check(digests: int, scratch: int, words: int, clips: int, salt: int, _most_cycles: int, _clips: int) -> None:
    expected = mix(_at(digests, 1) ^ places(words, salt))
    sums = _at(digests, clips)
    sums += np.uint32(np.count_nonzero(_at(scratch, words) != expected))


def _fill(digests: int, to: int, words: int, salt: int, _most_cycles: int, clips: int) -> None:
    _at(to, clips * words).reshape(clips, words)[...] = filled(_at(digests, clips), words, salt)


def _spin(cycles: int, _clips: int) -> None:
    end_ns = time.perf_counter_ns() + cycles  # as if at 1 GHz
    while time.perf_counter_ns() < end_ns:
        pass


_KERNELS: dict[str, Callable[..., None]] = {
    "clear": _clear,
    "digest": _digest,
    "scribble": _scribble,
    "check": _check,
    "fill": _fill,
    "spin": _spin,
}
