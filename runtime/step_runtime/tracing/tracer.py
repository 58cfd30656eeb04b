"""Recording what every thread does, and when: spans of work and of waiting.

A tracer is handed down to whatever does something worth knowing; `SILENT`, the default everywhere, records nothing.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T")

# Lanes: one for each thread, and for what the GPU does on each of its streams.
INFERENCE, READER, WRITER, LIVE_OVERLAY = "inference", "reader", "writer", "live-overlay"
GPU, GPU_UPLOAD = "GPU", "GPU upload"
SOURCE = "source"
"""What a reader of a live source waits for; nobody records it."""

LANE_ORDER = (READER, INFERENCE, GPU_UPLOAD, GPU, WRITER, LIVE_OVERLAY)
"""As a clip goes."""

_MOST_SPANS = 1_000_000  # about 200 MB; ten hours of 25 frames a second would be five times as many
_NOTHING = contextlib.nullcontext()


class Span(NamedTuple):
    """What a lane did for a while.

    Attributes:
        name: stage, as tables have it.
        lane: which thread, or stream of the GPU.
        start_ns, end_ns: of `time.perf_counter_ns`.
        waits_for: the lane that this one waited for; None for work.
    """

    name: str
    lane: str
    start_ns: int
    end_ns: int
    waits_for: str | None = None

    @property
    def duration_ns(self) -> int:
        """From start to end."""
        return self.end_ns - self.start_ns


class Tracer(Protocol):
    """What can be told of work; every method may be called from any thread.

    Attributes:
        is_on: whether anything is recorded; for what costs something before it can be told.
    """

    is_on: bool

    def span(self, name: str, *, waits_for: str | None = None) -> AbstractContextManager[None]:
        """Times a block in the calling thread's lane.

        Args:
            name: stage.
            waits_for: the lane that is waited for, if the block does nothing else.
        """

    def each(self, name: str, items: Iterable[T], *, waits_for: str | None = None) -> Iterator[T]:
        """The items; getting each of them is a span."""

    def add(self, span: Span) -> None:
        """Takes what was timed elsewhere."""


class SilentTracer:
    """Records nothing; see `Tracer`."""

    is_on = False

    def span(self, name: str, *, waits_for: str | None = None) -> AbstractContextManager[None]:
        """See `Tracer.span`."""
        del name, waits_for
        return _NOTHING

    def each(self, name: str, items: Iterable[T], *, waits_for: str | None = None) -> Iterator[T]:
        """See `Tracer.each`."""
        del name, waits_for
        return iter(items)

    def add(self, span: Span) -> None:
        """See `Tracer.add`."""


SILENT = SilentTracer()


class Recorder:
    """Keeps every span in memory; see `Tracer`.

    Args:
        capacity: spans that are kept; later ones are only counted.

    Attributes:
        spans: in the order of their ends, lane by lane.
        left_out: how many came after `capacity`.
    """

    is_on = True

    def __init__(self, *, capacity: int = _MOST_SPANS) -> None:
        self.spans: list[Span] = []
        self.left_out = 0
        self._capacity = capacity

    def span(self, name: str, *, waits_for: str | None = None) -> AbstractContextManager[None]:
        """See `Tracer.span`."""
        return _Timing(self, name, waits_for)

    def each(self, name: str, items: Iterable[T], *, waits_for: str | None = None) -> Iterator[T]:
        """See `Tracer.each`."""
        start_ns = time.perf_counter_ns()
        for item in items:
            self.add(Span(name, current_lane(), start_ns, time.perf_counter_ns(), waits_for))
            yield item
            start_ns = time.perf_counter_ns()
        if waits_for is not None:  # until it was known that nothing more comes
            self.add(Span(name, current_lane(), start_ns, time.perf_counter_ns(), waits_for))

    def add(self, span: Span) -> None:
        """See `Tracer.add`."""
        if len(self.spans) < self._capacity:
            self.spans.append(span)  # atomic: a lock would cost more than all the rest
        else:
            self.left_out += 1


class _Timing:
    """One block; written out because `contextlib.contextmanager` takes twice as long."""

    def __init__(self, recorder: Recorder, name: str, waits_for: str | None) -> None:
        self._recorder = recorder
        self._name = name
        self._waits_for = waits_for
        self._start_ns = 0

    def __enter__(self) -> None:
        self._start_ns = time.perf_counter_ns()

    def __exit__(self, *_exception: object) -> None:
        end_ns = time.perf_counter_ns()
        self._recorder.add(Span(self._name, current_lane(), self._start_ns, end_ns, self._waits_for))


def lane_rank(lane: str) -> tuple[int, str]:
    """Sorts lanes as a clip goes through them; those that are not known come last, by name."""
    return (LANE_ORDER.index(lane) if lane in LANE_ORDER else len(LANE_ORDER), lane)


def current_lane() -> str:
    """The calling thread's lane: the main thread is the one that runs the model."""
    thread = threading.current_thread()
    return INFERENCE if thread is threading.main_thread() else thread.name.removeprefix("step-")
