"""The reader thread: a source's frames to clips, or to windows of shared features, ahead of the model."""

import threading
import time
from collections.abc import Generator, Iterator
from typing import Protocol, TypeVar

from step_runtime.clips.channel import Channel, Stopped
from step_runtime.clips.run_state import RunState
from step_runtime.sources.base import Source, SourceFrame
from step_runtime.tracing.tracer import INFERENCE, READER, SOURCE, Tracer

Item = TypeVar("Item")
ItemOut = TypeVar("ItemOut", covariant=True)


class Buffer(Protocol[ItemOut]):
    """`ClipBuffer`, `WindowBuffer`: takes frames in order, gives what they complete."""

    def add(self, frame: SourceFrame) -> Iterator[ItemOut]:
        """Takes the next frame."""

    def finish(self) -> Iterator[ItemOut]:
        """What the end of the source completes."""


def start_reader(
    source: Source, buffer: Buffer[Item], items: Channel[Item], state: RunState, tracer: Tracer
) -> threading.Thread:
    """Starts a thread that reads until the source's end, a failure, or the consumer's wish.

    Args:
        source: opened.
        buffer: makes items of frames.
        items: takes them, and the failure; full, it makes the thread wait.
        state: notes how far the source is read and how long the thread worked.
        tracer: records what the thread does.
    """
    # Asked for here: whoever stops the source from now on stops this reading.
    frames = source.frames()
    reader = threading.Thread(
        target=_read,
        args=(frames, source.is_live, buffer, items, state, tracer),
        name=f"step-{READER}",
        daemon=True,
    )
    reader.start()
    return reader


def _read(
    frames: Iterator[SourceFrame],
    is_live: bool,
    buffer: Buffer[Item],
    items: Channel[Item],
    state: RunState,
    tracer: Tracer,
) -> None:
    failure: BaseException | None = None
    try:
        # A live source's frames come in their own time: that is waiting, whatever decoding is in it.
        waits_for = SOURCE if is_live else None
        for frame in tracer.each("wait for a frame" if is_live else "decode", frames, waits_for=waits_for):
            for item in buffer.add(frame):
                _hand_over(item, items, tracer)
            state.decoded_s = frame.time_s
        for item in buffer.finish():
            _hand_over(item, items, tracer)
    except Stopped:
        pass
    except BaseException as error:  # noqa: BLE001 - it is not swallowed: the consumer raises it
        failure = error
    finally:
        if isinstance(frames, Generator):
            frames.close()  # here and now: a connection that it holds ends with it
        state.host_s += time.thread_time()
        items.end(failure)


def _hand_over(item: Item, items: Channel[Item], tracer: Tracer) -> None:
    with tracer.span("wait for room", waits_for=INFERENCE):
        items.put(item)
