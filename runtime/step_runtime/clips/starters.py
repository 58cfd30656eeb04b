"""How what the reader completes becomes calls of the model: clips one by one, or windows that clips share."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np

from step.config import StepConfig
from step_runtime.backends.base import Backend
from step_runtime.backends.calls import Call, SharedCall, submit_clips
from step_runtime.clips.channel import Channel
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.clips.clip_groups import ClipGroups
from step_runtime.clips.feature_reuse import FeatureStore, extract_one, submit_one
from step_runtime.clips.feature_windows import Window, WindowBuffer, WindowPlan
from step_runtime.clips.key_frame import Clip, KeyMoment
from step_runtime.clips.reader import Buffer
from step_runtime.clips.run_state import RunState
from step_runtime.sources.base import Paced
from step_runtime.tracing.tracer import Tracer

Item = TypeVar("Item")
_CLIPS_WAITING = 2  # 17 MB each at full size
_GROUPS_WAITING = 1


@dataclass(frozen=True)
class Started:
    """What became of a key frame.

    Attributes:
        moment: which one it is.
        call: its detections are to come from; None where it was dropped.
        is_last: whether no other is started on what the reader handed over with it.
    """

    moment: Clip | KeyMoment
    call: Call | None
    is_last: bool


class Starter(Protocol[Item]):
    """`ClipStarter`, `GroupStarter`, `WindowStarter`: what the reader collects, and how that becomes calls.

    Attributes:
        buffer: collects.
        channel: from the reader to the model.
        config: of the model.
        dropped: key frames without a call so far.
    """

    config: StepConfig
    buffer: Buffer[Item]
    channel: Channel[Item]

    @property
    def dropped(self) -> int:
        """See the class."""

    def start(self, item: Item) -> Iterator[Started]:
        """Starts the calls of what was collected, one after the other."""

    def finish(self) -> None:
        """Takes note that the source was read to its end."""


class ClipStarter:
    """Every key frame's clip is a call of its own; a live source's oldest clips are dropped.

    Args:
        backend: what runs.
        source: opened.
        every_s: seconds between key frames; None makes every source frame one.
        state: the run's.
        tracer: the run's.
    """

    def __init__(
        self, backend: Backend, source: Paced, *, every_s: Fraction | None, state: RunState, tracer: Tracer
    ) -> None:
        self._backend, self._state = backend, state
        self.config = backend.config
        self.channel: Channel[Clip] = Channel(capacity=_CLIPS_WAITING, drop_oldest=source.is_live)
        self.buffer: Buffer[Clip] = ClipBuffer(
            config=backend.config,
            every_s=every_s,
            interval_s=source.interval_s,
            slack_s=source.slack_s,
            tracer=tracer,
        )

    @property
    def dropped(self) -> int:
        """See `Starter`."""
        return self.channel.dropped

    def start(self, item: Clip) -> Iterator[Started]:
        """See `Starter.start`."""
        with self._state.inference():
            call = submit_clips(self._backend, item.frames[None])
        yield Started(item, call, is_last=True)

    def finish(self) -> None:
        """See `Starter.finish`."""


class GroupStarter:
    """Several clips are a call: what an archive wants of a GPU, for key frames that come later.

    Args:
        backend: what runs.
        source: opened; a live one would wait for clips that are yet to come.
        every_s: seconds between key frames; None makes every source frame one.
        clips_a_call: clips of a call, fewer at the source's end; no more than the backend takes.
        state: the run's.
        tracer: the run's.
    """

    def __init__(
        self,
        backend: Backend,
        source: Paced,
        *,
        every_s: Fraction | None,
        clips_a_call: int,
        state: RunState,
        tracer: Tracer,
    ) -> None:
        self._backend, self._state = backend, state
        self.config = backend.config
        self.channel: Channel[tuple[Clip, ...]] = Channel(capacity=_GROUPS_WAITING)
        clips = ClipBuffer(
            config=backend.config,
            every_s=every_s,
            interval_s=source.interval_s,
            slack_s=source.slack_s,
            tracer=tracer,
        )
        self.buffer: Buffer[tuple[Clip, ...]] = ClipGroups(clips, clips_a_call)

    @property
    def dropped(self) -> int:
        """See `Starter`."""
        return 0

    def start(self, item: tuple[Clip, ...]) -> Iterator[Started]:
        """See `Starter.start`."""
        with self._state.inference():
            call = SharedCall(submit_clips(self._backend, np.stack([clip.frames for clip in item])))
        for number, clip in enumerate(item):
            yield Started(clip, call.part(number), is_last=number == len(item) - 1)

    def finish(self) -> None:
        """See `Starter.finish`."""


class WindowStarter:
    """The backbone runs on windows that neighbouring clips share, the steps on every clip.

    Windows that come late cost every clip that needs them, so a live source drops key frames after the backbone first,
    and windows only when the backbone alone is too slow.

    Args:
        backend: what runs; it takes features.
        source: opened.
        plan: of the windows.
        state: the run's.
        tracer: the run's.
    """

    def __init__(self, backend: Backend, source: Paced, *, plan: WindowPlan, state: RunState, tracer: Tracer) -> None:
        self._backend, self._state = backend, state
        self.config = backend.config
        self._is_live = source.is_live
        # As many windows wait as a clip may need: those that were dropped would else leave no clip whole.
        capacity = max(_CLIPS_WAITING, plan.windows_a_clip)
        self.channel: Channel[Window] = Channel(capacity=capacity, drop_runs=source.is_live)
        self._windows = WindowBuffer(
            config=backend.config, plan=plan, interval_s=source.interval_s, slack_s=source.slack_s, tracer=tracer
        )
        self.buffer: Buffer[Window] = self._windows
        self._store = FeatureStore(plan)
        self._started = 0
        self._asked = 0

    @property
    def dropped(self) -> int:
        """See `Starter`."""
        return self._asked - self._started

    def start(self, item: Window) -> Iterator[Started]:
        """See `Starter.start`."""
        with self._state.inference():
            self._store.add(item.first_group, extract_one(self._backend, item.frames[None]))
        for key in item.keys:
            is_last = key is item.keys[-1]
            is_late = self._is_live and self.channel.has_waiting and not is_last
            clip = None if is_late else self._store.clip(key.group)
            call = None
            if clip is not None:
                with self._state.inference():
                    call = Call(submit_one(self._backend, clip), 1)
                self._started += 1
            self._asked = key.number + 1
            yield Started(key, call, is_last=is_last)

    def finish(self) -> None:
        """Counts the key frames whose windows never came, too."""
        self._asked = self._windows.key_count
