"""One source's run: a thread reads ahead, and what it completes becomes calls of the model, in order."""

import time
from collections import deque
from collections.abc import Iterator
from typing import TypeVar

from step_runtime.backends.calls import Call
from step_runtime.clips.key_frame import Clip, KeyFrame, KeyMoment
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
    dropped_before = state.dropped_clips
    under_way: deque[tuple[Clip | KeyMoment, Call]] = deque()
    channel = starter.channel
    reader = start_reader(source, starter.buffer, channel, state, tracer)
    try:
        for item in tracer.each("wait for a clip", channel, waits_for=READER):
            for started in starter.start(item):
                if started.call is not None:
                    under_way.append((started.moment, started.call))
                state.dropped_clips = dropped_before + starter.dropped
                # A result is taken when the backend has no room for another call, or when nothing is waiting for it.
                while len(under_way) >= depth or (under_way and started.is_last and not channel.has_waiting):
                    yield _finish(*under_way.popleft(), source=source, state=state)
        while under_way:
            yield _finish(*under_way.popleft(), source=source, state=state)
        starter.finish()
    finally:
        channel.stop()
        if isinstance(source, Stoppable):
            source.stop()
        reader.join()
        state.dropped_clips = dropped_before + starter.dropped
    state.notes += source.notes
    if source.problem is not None:
        state.problems.append(source.problem)


def _finish(moment: Clip | KeyMoment, call: Call, *, source: Source, state: RunState) -> KeyFrame:
    with state.inference():
        detections = call.result()
    return KeyFrame(
        video=source.name,
        time_s=moment.time_s,
        scheduled_s=moment.scheduled_s,
        frame=moment.frame,
        width_px=moment.width_px,
        height_px=moment.height_px,
        detections=detections,
        lag_s=time.monotonic() - moment.ready_at_s,
    )
