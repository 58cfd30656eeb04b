"""One source's run: a thread reads ahead, and what it completes becomes calls of the model, in order."""

from collections.abc import Iterator
from typing import TypeVar

from step_runtime.clips.calls_under_way import CallsUnderWay
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.clips.reader import start_reader
from step_runtime.clips.run_state import RunState
from step_runtime.clips.starters import Starter
from step_runtime.sources.base import Source, Stoppable
from step_runtime.tracing.tracer import READER, Tracer

Item = TypeVar("Item")


def run_loop(
    source: Source, starter: Starter[Item], *, depth: int, state: RunState, tracer: Tracer
) -> Iterator[KeyFrame]:
    """Runs a source from its beginning to its end, or to where it breaks.

    Args:
        source: opened.
        starter: what is collected and called.
        depth: calls that the backend takes before it wants a result taken.
        state: is kept up to date.
        tracer: records what is waited for.

    Yields:
        The key frames with their detections, in order.
    """
    calls = CallsUnderWay(starter, video=source.name, depth=depth, state=state)
    channel = starter.channel
    reader = start_reader(source, starter.buffer, channel, state, tracer)
    try:
        for item in tracer.each("wait for a clip", channel, waits_for=READER):
            yield from calls.take(item, has_more=lambda: channel.has_waiting)
        yield from calls.rest()
        starter.finish()
    finally:
        channel.stop()
        if isinstance(source, Stoppable):
            source.stop()
        reader.join()
        calls.count_dropped()
    state.notes += source.notes
    if source.problem is not None:
        state.problems.append(source.problem)
