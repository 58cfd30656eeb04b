"""What sections of the stage `cuda_runtime` work with: memory and handles that are given back, and a hash to check."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from step_runtime.backends.cuda import give_back_later
from step_runtime.backends.engine_loop import pinned_array

from gpu_check.cuda_machine import CudaMachine
from gpu_check.spin_arithmetic import Words, digest, filled
from step.errors import StepError

CLOCK = 9
"""What a digest begins with."""
_PAUSE_CYCLES = 2000  # at most, of each block


@dataclass(frozen=True)
class Sizes:
    """Sets the sizes of the work, by device.

    Attributes:
        large_bytes: of a copy that is timed.
        words: of a tensor that kernels write.
        replays: of a graph.
        long_cycles: of a kernel that others wait for.
        handles: of each kind in a round of making and giving back.
        big_bytes: what is allocated and freed until it adds up to more than the card has.
    """

    large_bytes: int
    words: int
    replays: int
    long_cycles: int
    handles: int
    big_bytes: int


@dataclass(frozen=True)
class Bench:
    """Holds what one section works with.

    Attributes:
        machine: the GPU.
        sizes: of the work.
        stack: gives back all that the section makes.
    """

    machine: CudaMachine
    sizes: Sizes
    stack: contextlib.ExitStack

    def device(self, size: int) -> int:
        """Allocates device memory."""
        return give_back_later(self.stack, self.machine.cuda.free, self.machine.cuda.allocate(size))

    def pinned(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        """Allocates page-locked memory: its address and itself."""
        address = self.machine.cuda.allocate_pinned(size)
        give_back_later(self.stack, self.machine.cuda.free_pinned, address)
        return address, pinned_array(address, (size,), "uint8").view(np.uint8)

    def stream(self) -> int:
        """Makes a stream."""
        return give_back_later(self.stack, self.machine.cuda.destroy_stream, self.machine.cuda.create_stream())

    def event(self, *, timed: bool = False) -> int:
        """Makes an event."""
        cuda = self.machine.cuda
        made = cuda.create_timed_event() if timed else cuda.create_event()
        return give_back_later(self.stack, cuda.destroy_event, made)

    def graph(self, stream: int, work: Callable[[], None]) -> int:
        """Records a graph of what `work` puts into the stream."""
        cuda = self.machine.cuda
        cuda.begin_capture(stream)
        try:
            work()
        except StepError:
            with contextlib.suppress(
                StepError
            ):  # the first failure is reported; a recording that goes on fails all else
                cuda.destroy_graph(cuda.end_capture(stream))
            raise
        return give_back_later(self.stack, cuda.destroy_graph, cuda.end_capture(stream))


class Hashing:
    """Hashes an input by kernels after a copy: the result is wrong where any of it was missing, late or stale."""

    def __init__(self, bench: Bench, stream: int) -> None:
        self._bench, self._stream, self._words = bench, stream, bench.sizes.words
        size = 4 * self._words
        self._digests, self._input, self._copy = bench.device(64), bench.device(size), bench.device(size)
        self._output = bench.device(size)
        self._source, sent = bench.pinned(size)
        self._target, got = bench.pinned(size)
        self._sent: Words = sent.view(np.uint32)
        self.got: Words = got.view(np.uint32)
        self._sent[...] = 0

    def enqueue(self, salt: int) -> None:
        """Puts the copy and the kernels into the stream."""
        launcher, stream, words = self._bench.machine.launcher, self._stream, self._words
        self._bench.machine.cuda.copy(self._copy, self._input, 4 * words, stream)
        launcher.launch("clear", (self._digests, 1, CLOCK), stream)
        launcher.launch("digest", (self._copy, self._digests, words, salt, _PAUSE_CYCLES), stream, words=words)
        launcher.launch("fill", (self._digests, self._output, words, salt, _PAUSE_CYCLES), stream, words=words)

    def prepare(self, seed: int, salt: int) -> Words:
        """Uploads another input; returns what is to come of it."""
        random = np.random.default_rng(seed)
        self._sent[...] = random.integers(0, 1 << 32, self._words, np.uint32)
        self._bench.machine.cuda.upload(self._input, self._source, 4 * self._words, self._stream)
        digests = digest(self._sent[None], salt) + np.uint32(CLOCK)
        expected: Words = filled(digests, self._words, salt)[0]
        return expected

    def fetch(self) -> None:
        """Downloads the output."""
        self._bench.machine.cuda.download(self._target, self._output, 4 * self._words, self._stream)

    def run(self, seed: int, salt: int, work: Callable[[], None]) -> bool:
        """Says whether the output of another input is right after `work`."""
        expected = self.prepare(seed, salt)
        work()
        self.fetch()
        self._bench.machine.cuda.synchronize_stream(self._stream)
        return np.array_equal(self.got, expected)


def in_thread(work: Callable[[], None]) -> str | None:
    """Does work in a new thread and waits for it; returns what went wrong there."""
    problems: list[str] = []

    def guarded() -> None:
        try:
            work()
        except (StepError, RuntimeError, TypeError, OverflowError) as error:
            problems.append(str(error))

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    return problems[0] if problems else None
