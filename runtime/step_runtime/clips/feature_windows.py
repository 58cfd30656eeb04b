"""Cutting a stream of frames into overlapping windows, from whose features clips are put together.

The frames shown at n / 12 s form a fixed grid. Key frames lie on every 4th of its moments, so that the groups of 4
frames, one feature frame each, are the same for all clips (SPEC.md, "Clip and preprocessing" and "Backbone").
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from step.clips import clip_offsets_s
from step.config import CLIP_FPS, TIME_STRIDE, StepConfig
from step.errors import ArgumentError
from step_runtime.clips.key_frame import KeyMoment
from step_runtime.sources.base import SourceFrame
from step_runtime.tracing.tracer import SILENT, Tracer

GROUP_S = Fraction(TIME_STRIDE, CLIP_FPS)
"""Length of a group of frames: 1/3 s."""


def groups_between_keys(every_s: Fraction | None) -> int:
    """Groups of frames from one key frame to the next.

    Args:
        every_s: seconds between key frames; None for every source frame.

    Raises:
        StepError: key frames that are not on the grid.
    """
    if every_s is None:
        raise ArgumentError(
            f"`every_s` frame with `reuse_backbone`, which needs a multiple of {GROUP_S} s; give {GROUP_S}"
        )
    groups = every_s / GROUP_S
    if groups.denominator != 1:
        below, above = int(groups) * GROUP_S, (int(groups) + 1) * GROUP_S
        near = f"{below} or {above}" if below else f"{above}"
        raise ArgumentError(
            f"`every_s` is {float(every_s):g}; with `reuse_backbone` it is a multiple of {GROUP_S} s, the length of "
            f"a feature frame: give {near}"
        )
    return int(groups)


@dataclass(frozen=True)
class WindowPlan:
    """Which groups windows have, and which of those are kept.

    Attributes:
        groups: of a window, as of a clip.
        margin: groups that are dropped on each side.
        key_groups: from one key frame to the next.
    """

    groups: int
    margin: int
    key_groups: int

    @property
    def advance(self) -> int:
        """Groups from one window to the next, which are those that are kept of each."""
        return self.groups - 2 * self.margin

    @property
    def windows_a_clip(self) -> int:
        """Most windows that a clip's groups come from."""
        return (self.groups - 2) // self.advance + 2 if self.groups > 1 else 1

    @classmethod
    def of(cls, config: StepConfig, *, every_s: Fraction | None, margin: int) -> "WindowPlan":
        """The plan of a run.

        Args:
            config: the model's.
            every_s: seconds between key frames; None for every source frame.
            margin: groups.

        Raises:
            StepError: key frames that are not on the grid, or so far apart that nothing would be saved.
        """
        groups = config.feature_frames
        advance = groups - 2 * margin
        key_groups = groups_between_keys(every_s)
        if key_groups >= advance:
            most = (advance - 1) * GROUP_S
            instead = f"`every_s` {most} at most, or run" if most > 0 else "run"
            raise ArgumentError(
                f"`every_s` {every_s} with `reuse_backbone`: a backbone call gives {max(advance, 0) * GROUP_S} s of "
                f"features, so that none is shared; give {instead} without it"
            )
        return cls(groups=groups, margin=margin, key_groups=key_groups)


@dataclass(frozen=True)
class Window:
    """Frames for one backbone call.

    Attributes:
        frames: uint8 [F, H, W, 3] RGB.
        first_group: number of the first group; the first clip begins with group 0.
        keys: key frames of which this window gives the last groups.
    """

    frames: NDArray[np.uint8]
    first_group: int
    keys: tuple[KeyMoment, ...]


class WindowBuffer:
    """Takes frames in order, gives windows in order; before the source's start and after its end frames repeat.

    Args:
        config: clip length and frame size.
        plan: of the windows.
        interval_s: the source's nominal frame interval.
        slack_s: how far a timestamp may be off because the container rounds it; 0 for exact ones.
        tracer: records what it does.

    Attributes:
        key_count: key frames found until now.

    Holds the frames of one window. A frame that no moment of the grid shows is never converted.
    """

    def __init__(
        self,
        *,
        config: StepConfig,
        plan: WindowPlan,
        interval_s: Fraction,
        slack_s: Fraction = Fraction(0),
        tracer: Tracer = SILENT,
    ) -> None:
        self._tracer = tracer
        self._size_px = config.image_size_px
        self._plan = plan
        self._interval_s = interval_s
        self._slack_s = slack_s
        self._clip_slots = config.clip_frames
        self._first_slot = round(clip_offsets_s(config.clip_frames)[0] * CLIP_FPS)  # of group 0
        self._frames: deque[NDArray[np.uint8]] = deque()
        self._completed_by: float | None = None  # when the newest frame was due, on the monotonic clock
        self._next_number = 0  # of the next key frame on the grid
        self._shown: SourceFrame | None = None
        self._start_at(0)
        self._resized: NDArray[np.uint8] | None = None  # of the frame shown
        self._keys: deque[KeyMoment] = deque()
        self.key_count = 0

    def add(self, frame: SourceFrame) -> Iterator[Window]:
        """Takes the next frame and gives the windows that it completes."""
        if frame.starts_segment:
            yield from self.finish()
            every_s = self._plan.key_groups * GROUP_S
            self._start_at(max(self._next_number, math.ceil((frame.time_s - self._slack_s) / every_s)))
        self._completed_by = frame.due_at_s
        while self._shown is not None and self._slot_s + self._slack_s < frame.time_s:
            yield from self._take(self._shown)
        self._shown, self._resized = frame, None

    def finish(self) -> Iterator[Window]:
        """The windows that the end of the source completes."""
        self._completed_by = None
        if self._shown is None:
            return
        end_s = self._shown.time_s + self._interval_s
        while self._slot_s + self._slack_s < end_s:
            yield from self._take(self._shown)
        while self._keys:  # until the last clip has all its groups
            yield from self._take(self._shown, after_end=True)

    def _start_at(self, number: int) -> None:
        """Windows begin anew, with those of the clip of this key frame of the grid."""
        self._next_number = number
        self._window_group = number * self._plan.key_groups - self._plan.margin  # first group of the next window
        self._slot = self._first_slot + self._window_group * TIME_STRIDE  # number n of the next moment n / 12
        self._shown = None
        self._frames.clear()

    @property
    def _slot_s(self) -> Fraction:
        return Fraction(self._slot, CLIP_FPS)

    def _take(self, shown: SourceFrame, *, after_end: bool = False) -> Iterator[Window]:
        """The next moment of the grid, which shows this frame; gives the window that it completes."""
        plan, slot = self._plan, self._slot
        if self._resized is None:
            size = (self._size_px, self._size_px)
            with self._tracer.span("convert"):
                picture = shown.rgb()
            with self._tracer.span("resize"):
                self._resized = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        self._frames.append(self._resized)
        self._slot += 1
        if slot == self._next_number * plan.key_groups * TIME_STRIDE and not after_end:
            self._next_number += 1
            self._keys.append(
                KeyMoment(
                    number=self.key_count,
                    group=slot // TIME_STRIDE,
                    time_s=shown.time_s,
                    scheduled_s=Fraction(slot, CLIP_FPS),
                    frame=shown.index,
                    width_px=shown.width_px,
                    height_px=shown.height_px,
                    ready_at_s=0.0,
                )
            )
            self.key_count += 1
        self._note_ready(slot)
        if len(self._frames) == plan.groups * TIME_STRIDE:
            yield self._cut()

    def _note_ready(self, slot: int) -> None:
        """The clip that ends here would be complete now, did it not wait for its window."""
        for index, key in enumerate(self._keys):
            if key.group * TIME_STRIDE + self._first_slot + self._clip_slots - 1 == slot:
                self._keys[index] = replace(key, ready_at_s=self._completed_by or time.monotonic())

    def _cut(self) -> Window:
        plan = self._plan
        kept_until = self._window_group + plan.groups - plan.margin
        keys: list[KeyMoment] = []
        while self._keys and self._keys[0].group + plan.groups <= kept_until:
            keys.append(self._keys.popleft())
        with self._tracer.span("cut"):
            window = Window(np.stack(self._frames), self._window_group, tuple(keys))
        self._window_group += plan.advance
        for _ in range(plan.advance * TIME_STRIDE):
            self._frames.popleft()
        return window
