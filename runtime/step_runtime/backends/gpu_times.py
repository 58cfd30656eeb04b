"""When the GPU did what: CUDA events between the parts of a clip's work, as spans of a trace.

The GPU's clock is set against the host's once: an event that the host waits for. CUDA gives times from there on as
float32 milliseconds, so that spans are placed to a microsecond in the first seconds and to 0.25 ms after an hour.
"""

import contextlib
import time
from dataclasses import dataclass, field

from step_runtime.backends.cuda import Cuda, give_back_later
from step_runtime.tracing.tracer import Span, Tracer


class GpuClock:
    """Turns events to the host's time.

    Args:
        cuda: the GPU.
        stream: any of its streams, with nothing under way.
        stack: gives the event back.

    Raises:
        StepError: CUDA fails.
    """

    def __init__(self, cuda: Cuda, stream: int, stack: contextlib.ExitStack) -> None:
        self._cuda = cuda
        self._origin = give_back_later(stack, cuda.destroy_event, cuda.create_timed_event())
        cuda.record(self._origin, stream)
        cuda.synchronize_event(self._origin)
        self._origin_ns = time.perf_counter_ns()

    def at_ns(self, event: int) -> int:
        """When an event happened that has happened, as `time.perf_counter_ns` has it."""
        return self._origin_ns + round(1e6 * self._cuda.elapsed_ms(self._origin, event))


@dataclass(frozen=True)
class _Mark:
    """An event in a lane, and the name of the work before it; None for the lane's beginning."""

    lane: str
    name: str | None
    event: int


@dataclass
class ClipTimes:
    """The events of one clip under way; does nothing without a clock.

    Args:
        cuda: the GPU.
        clock: None where nobody asked.
        stack: gives the events back.
    """

    cuda: Cuda
    clock: GpuClock | None
    stack: contextlib.ExitStack
    _marks: list[_Mark] = field(default_factory=list)
    _events: list[int] = field(default_factory=list)

    def clear(self) -> None:
        """Another clip begins."""
        self._marks.clear()

    def begin(self, lane: str, stream: int) -> None:
        """What comes next in this stream is timed from here."""
        self._record(lane, None, stream)

    def mark(self, lane: str, name: str, stream: int) -> None:
        """All that came into this stream since the last mark of the lane is one stage."""
        self._record(lane, name, stream)

    def report(self, tracer: Tracer) -> None:
        """Tells the tracer, once all marks have happened.

        Raises:
            StepError: CUDA fails.
        """
        since_ns: dict[str, int] = {}
        for mark in self._marks:
            assert self.clock is not None
            now_ns = self.clock.at_ns(mark.event)
            if mark.name is not None:
                tracer.add(Span(mark.name, mark.lane, since_ns[mark.lane], now_ns))
            since_ns[mark.lane] = now_ns
        self._marks.clear()

    def _record(self, lane: str, name: str | None, stream: int) -> None:
        if self.clock is None:
            return
        if len(self._marks) == len(self._events):
            self._events.append(give_back_later(self.stack, self.cuda.destroy_event, self.cuda.create_timed_event()))
        event = self._events[len(self._marks)]
        self.cuda.record(event, stream)
        self._marks.append(_Mark(lane, name, event))
