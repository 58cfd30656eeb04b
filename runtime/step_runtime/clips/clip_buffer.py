"""Cutting a stream of frames into clips: each frame is held once and shared by every clip that shows it.

Source: SPEC.md, "Clip and preprocessing". The index rule int(k + j s) is read as a rule on timestamps: the frame shown
at time t_key + j / 12 is the last one that starts at or before that time. At a constant rate the two are the same.
"""

import bisect
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from step.clips import clip_offsets_s
from step.config import StepConfig
from step_runtime.clips.key_frame import Clip
from step_runtime.sources.base import SourceFrame
from step_runtime.tracing.tracer import SILENT, Tracer


@dataclass(frozen=True)
class _Held:
    """A frame in the buffer: resized to uint8 [size, size, 3], the decoder's picture let go."""

    time_s: Fraction
    index: int
    width_px: int
    height_px: int
    resized: NDArray[np.uint8]


class ClipBuffer:
    """Takes frames in order, gives clips in order.

    Args:
        config: clip length and frame size.
        every_s: seconds between key frames, or None to make every source frame one.
        interval_s: the source's nominal frame interval.
        slack_s: how far a timestamp may be off because the container rounds it; 0 for exact ones.
        tracer: records what it does, and when.

    Holds at most the frames of one clip's span, whatever the video's length.
    """

    def __init__(
        self,
        *,
        config: StepConfig,
        every_s: Fraction | None,
        interval_s: Fraction,
        slack_s: Fraction = Fraction(0),
        tracer: Tracer = SILENT,
    ) -> None:
        self._tracer = tracer
        self._size_px = config.image_size_px
        self._offsets_s = clip_offsets_s(config.clip_frames)
        # Key frames closer than frames are every frame.
        self._every_s = None if every_s is not None and every_s <= interval_s else every_s
        self._interval_s = interval_s
        self._slack_s = slack_s
        self._held: deque[_Held] = deque()
        self._keys: deque[tuple[Fraction, _Held]] = deque()  # (scheduled time, key frame) whose clips are not complete
        self._next_key = 0  # number of the next scheduled key frame
        self._completed_by: float | None = None  # when the newest frame was due, on the monotonic clock

    def add(self, frame: SourceFrame) -> Iterator[Clip]:
        """Takes the next frame and gives the clips that it completes."""
        if frame.starts_segment:
            yield from self.finish()
            self._held.clear()
            if self._every_s is not None:
                self._next_key = max(self._next_key, math.ceil((frame.time_s - self._slack_s) / self._every_s))
        self._completed_by = frame.due_at_s
        self._schedule_until(frame.time_s)
        yield from self._clips_before(frame.time_s)
        self._hold(frame)
        if self._every_s is None:
            self._keys.append((frame.time_s, self._held[-1]))
        self._forget()

    def finish(self) -> Iterator[Clip]:
        """The clips that the end of the source completes, their last frames repeated."""
        self._completed_by = None
        if self._held:
            self._schedule_until(self._held[-1].time_s + self._interval_s)
        while self._keys:
            yield self._traced_cut()

    def _clips_before(self, time_s: Fraction) -> Iterator[Clip]:
        """Clips whose last frame cannot be one that starts at `time_s` or later."""
        while self._keys and self._keys[0][1].time_s + self._offsets_s[-1] + self._slack_s < time_s:
            yield self._traced_cut()

    def _schedule_until(self, time_s: Fraction) -> None:
        """A scheduled moment before `time_s` has its key frame: the newest frame held."""
        if self._every_s is None:
            return
        while self._held and (scheduled := self._next_key * self._every_s) + self._slack_s < time_s:
            self._keys.append((scheduled, self._held[-1]))
            self._next_key += 1

    def _hold(self, frame: SourceFrame) -> None:
        # Every frame is resized, even where key frames are far apart: which frames a clip shows is known only when its
        # key frame is, and after a gap in the timestamps that can be long before its schedule.
        size = (self._size_px, self._size_px)
        with self._tracer.span("convert"):
            pixels = frame.rgb()
        with self._tracer.span("resize"):
            resized = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        self._held.append(_Held(frame.time_s, frame.index, frame.width_px, frame.height_px, resized))

    def _forget(self) -> None:
        """Drops frames that end before anything that is still to be cut begins."""
        earliest_key = self._keys[0][1] if self._keys else self._held[-1]  # no later one is older than the newest frame
        begin = earliest_key.time_s + self._offsets_s[0]
        while len(self._held) > 1 and self._held[1].time_s <= begin:
            self._held.popleft()

    def _traced_cut(self) -> Clip:
        with self._tracer.span("cut"):
            return self._cut(*self._keys.popleft())

    def _cut(self, scheduled_s: Fraction, key: _Held) -> Clip:
        held = list(self._held)
        times = [frame.time_s - self._slack_s for frame in held]
        frames = np.empty((len(self._offsets_s), self._size_px, self._size_px, 3), np.uint8)
        for position, offset in enumerate(self._offsets_s):
            newest = bisect.bisect_right(times, key.time_s + offset) - 1
            frames[position] = held[max(newest, 0)].resized
        return Clip(
            frames=frames,
            time_s=key.time_s,
            scheduled_s=scheduled_s,
            frame=key.index,
            width_px=key.width_px,
            height_px=key.height_px,
            ready_at_s=time.monotonic() if self._completed_by is None else self._completed_by,
        )
