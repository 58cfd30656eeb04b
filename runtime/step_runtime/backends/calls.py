"""Calls under way: clips handed to a backend that may want more of them at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from step.detections import Detections
from step_runtime.backends.base import Array, Backend, Pending


@dataclass(frozen=True)
class Call:
    """A call under way.

    Attributes:
        pending: the backend's.
        count: how many of its clips were asked for; the others fill it up.
    """

    pending: Pending
    count: int

    def result(self) -> Detections[Array]:
        """Waits for the call, and gives the detections of the clips that were asked for, in contiguous arrays."""
        return Detections(*(np.ascontiguousarray(rows[: self.count]) for rows in self.pending.result()))


def submit_clips(backend: Backend, frames: NDArray[np.uint8], *, size: int = 1) -> Call:
    """Starts a backend on clips, filled up by repeating the last one, whose extra results are cut off.

    Args:
        backend: what runs.
        frames: uint8 [B, F, H, W, 3], no more clips than the backend takes.
        size: clips that the call has at least.
    """
    missing = max(backend.min_batch, size) - len(frames)
    if missing > 0:
        filled = np.concatenate((frames, np.repeat(frames[-1:], missing, axis=0)))
        return Call(backend.submit(filled), len(frames))
    return Call(backend.submit(frames), len(frames))


class SharedCall:
    """One call of several clips, whose results are asked for clip by clip.

    Args:
        call: is waited for once, when the first result is asked for.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._found: Detections[Array] | None = None

    def part(self, number: int) -> Call:
        """The call as if it were of one of its clips alone."""
        return Call(_Part(self, number), 1)

    def result(self) -> Detections[Array]:
        """The detections of all its clips."""
        if self._found is None:
            self._found = self._call.result()
        return self._found


@dataclass(frozen=True)
class _Part:
    """One clip of a shared call, as a backend's pending call."""

    shared: SharedCall
    number: int

    def result(self) -> Detections[Array]:
        """A copy, since the caller may keep or change it."""
        return Detections(*(rows[self.number : self.number + 1].copy() for rows in self.shared.result()))
