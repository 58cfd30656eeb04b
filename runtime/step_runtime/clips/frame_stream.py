"""Key frames of a caller's own frames, which are pushed one by one instead of read from a source."""

import dataclasses
import functools
import itertools
import numbers
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from step.arguments import check_whole, exact_interval, exact_rate, exact_seconds, simplest
from step.errors import ArgumentError, StepError
from step.shown import quoted
from step.video.timeline import Placed, Timeline
from step_runtime.backends.base import Backend
from step_runtime.clips.calls_under_way import CallsUnderWay
from step_runtime.clips.key_frame import Clip, KeyFrame
from step_runtime.clips.run_state import RunState
from step_runtime.clips.starters import ClipStarter
from step_runtime.sources.frame_folder import image_frame
from step_runtime.tracing.tracer import Tracer


@dataclass(frozen=True)
class StreamOptions:
    """What a caller's frames are; see `Detector.stream`.

    Attributes:
        name: what results call the stream.
        interval_s: nominal time between frames.
        slack_s: how far a time may be off because it was rounded.
        every_s: seconds between key frames; None makes every frame one.
        size_px: width and height of the frames; None takes the first one's.
    """

    name: str
    interval_s: Fraction
    slack_s: Fraction
    every_s: Fraction | None
    size_px: tuple[int, int] | None

    @classmethod
    def of(
        cls,
        *,
        fps: float | Fraction,
        size: tuple[int, int] | None,
        every_s: float | Fraction | None,
        slack_s: float | Fraction,
        name: str,
    ) -> Self:
        """Reads what a caller gave; see `Detector.stream`.

        Raises:
            ArgumentError: a value out of range or of another type.
        """
        if size is not None:
            if not (isinstance(size, (tuple, list)) and len(size) == 2):
                raise ArgumentError(f"`size` is {quoted(size)}; give width and height in pixels, such as (640, 480)")
            for side in size:
                check_whole("size", side, least=1)
        slack = exact_seconds("slack_s", slack_s)
        if slack < 0:
            raise ArgumentError(f"`slack_s` is {float(slack):g}; it must be at least 0")
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"`name` is {quoted(name)}; give a word for the results")
        return cls(
            name=name,
            interval_s=1 / exact_rate("fps", fps),
            slack_s=slack,
            every_s=None if every_s is None else exact_interval("every_s", every_s),
            size_px=None if size is None else (int(size[0]), int(size[1])),
        )


class FrameStream:
    """Takes frames as they come and gives the key frames that they complete; `Detector.stream` makes one.

    It gives what `Detector.run` gives for a file of the same frames and times. A key frame is complete when the frames
    of its clip are there: 1.5 s after it, for clips of 36 frames. The model runs inside `push`. One thread pushes. As a
    context manager it is closed at the end, which gives up what is not complete: call `finish` before.

    Args:
        backend: what runs.
        options: what the frames are.
        tracer: is told what happens, and when.
        check_open: raises where the detector is closed.
    """

    is_live = False

    def __init__(
        self, backend: Backend, options: StreamOptions, *, tracer: Tracer, check_open: Callable[[], None]
    ) -> None:
        self._check_open = check_open
        self.interval_s, self.slack_s = options.interval_s, options.slack_s
        self._size_px = options.size_px
        state = RunState()
        starter = ClipStarter(backend, self, every_s=options.every_s, state=state, tracer=tracer)
        self._buffer = starter.buffer
        self._calls = CallsUnderWay(starter, video=options.name, depth=backend.depth, state=state)
        self._timeline: Timeline[NDArray[np.uint8]] = Timeline(options.interval_s)
        self._first_s: Fraction | None = None  # on the caller's clock
        self._newest_s = Fraction(0)  # on the caller's clock
        self._pushed = 0
        self._placed = 0
        self._ended: str | None = None

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def push(self, frame: NDArray[np.uint8], time_s: float | Fraction) -> list[KeyFrame]:
        """Takes the next frame.

        Times may begin anywhere: key frames lie `every_s` apart from the first frame on, and have the caller's times. A
        float is taken for the simplest fraction beside it. A gap of more than a second is one, as in a file: no frame
        before it stands in for what it hides, and whether it is one, the three frames after it tell.

        Args:
            frame: uint8 [H, W, 3] RGB, always of one size; it is copied.
            time_s: seconds, later than the frame's before.

        Returns:
            The key frames that are complete now, in order; mostly none.

        Raises:
            StepError: another type, dtype, shape or size, a time that does not grow, or the stream has ended.
            RuntimeError: the detector is closed.
        """
        self._check()
        self._check_frame(frame)
        now_s = exact_seconds("time_s", time_s)
        if self._pushed and now_s <= self._newest_s:
            raise ArgumentError(
                f"`time_s` is {float(now_s):g} at frame {self._pushed}, after {float(self._newest_s):g}; it has to grow"
            )
        self._first_s = now_s if self._first_s is None else self._first_s
        self._newest_s = now_s
        self._pushed += 1
        stamp_s = now_s - self._first_s
        if not isinstance(time_s, numbers.Rational):  # two rounded times, such as a clock's
            stamp_s = simplest(stamp_s)
        placed = self._timeline.add(np.array(frame, order="C"), stamp_s)
        return list(self._key_frames(self._clips(placed)))

    def finish(self) -> list[KeyFrame]:
        """Ends the stream as the end of a file does: the key frames whose clips it completes, last frames repeated.

        Raises:
            StepError: the stream has ended before.
            RuntimeError: the detector is closed.
        """
        self._check()
        last = self._clips(self._timeline.finish())
        found = list(self._key_frames(itertools.chain(last, self._buffer.finish())))
        found += (self._on_callers_clock(key_frame) for key_frame in self._calls.rest())
        self._ended = "the stream has ended with `finish`; open another one"
        return found

    def close(self) -> None:
        """Ends the stream, and gives up what is not complete; nothing happens the second time."""
        self._ended = self._ended or "the stream is closed; open another one"

    def _clips(self, frames: Iterable[Placed[NDArray[np.uint8]]]) -> Iterator[Clip]:
        """The clips that frames complete whose times are known."""
        for placed in frames:
            frame = image_frame(placed.item, placed.time_s, self._placed)
            self._placed += 1
            yield from self._buffer.add(dataclasses.replace(frame, starts_segment=placed.jump is not None))

    def _key_frames(self, clips: Iterator[Clip]) -> Iterator[KeyFrame]:
        for clip, following in itertools.pairwise(itertools.chain(clips, (None,))):
            if clip is not None:
                has_more = functools.partial(operator.is_not, following, None)
                for key_frame in self._calls.take(clip, has_more=has_more):
                    yield self._on_callers_clock(key_frame)

    def _on_callers_clock(self, key_frame: KeyFrame) -> KeyFrame:
        zero_s = (self._first_s or Fraction(0)) + (self._timeline.zero_s or Fraction(0))
        return dataclasses.replace(
            key_frame, time_s=zero_s + key_frame.time_s, scheduled_s=zero_s + key_frame.scheduled_s
        )

    def _check(self) -> None:
        self._check_open()
        if self._ended is not None:
            raise StepError(self._ended)

    def _check_frame(self, frame: object) -> None:
        wanted = "give uint8 [H, W, 3] RGB, a NumPy array"
        if not isinstance(frame, np.ndarray):
            raise ArgumentError(f"`frame` is of the type {type(frame).__name__}; {wanted}")
        if frame.dtype != np.uint8:
            raise ArgumentError(f"`frame` is of {frame.dtype}; {wanted}, with values from 0 to 255")
        shape = list(frame.shape)
        if len(shape) != 3 or shape[2] != 3 or not all(shape):
            is_channel_first = len(shape) == 3 and shape[0] == 3
            hint = ", the colour channel last" if is_channel_first else ""
            raise ArgumentError(f"`frame` is of shape {shape}; {wanted}{hint}")
        size_px = (shape[1], shape[0])
        if self._size_px is None:
            self._size_px = size_px
        if size_px != self._size_px:
            (width, height), (others_width, others_height) = size_px, self._size_px
            raise ArgumentError(
                f"`frame` is {width} x {height} px at frame {self._pushed}; this stream's frames are "
                f"{others_width} x {others_height}: resize it, or open another stream"
            )
