"""`Detector`: a loaded model that takes clips or whole sources."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from step.clips import check_frames
from step.config import StepConfig
from step.detections import Detections
from step.errors import StepError
from step_runtime.backends.base import Array, Backend, Loop, Pending
from step_runtime.backends.select import BackendName, open_backend
from step_runtime.clips.channel import Channel
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.clips.feature_reuse import MARGIN, FeatureStore, extract_one, plan_reuse, submit_one
from step_runtime.clips.feature_windows import Window, WindowBuffer, WindowPlan
from step_runtime.clips.key_frame import Clip, KeyFrame, KeyMoment
from step_runtime.clips.reader import start_reader
from step_runtime.clips.run_state import RunState
from step_runtime.sources.base import Source, Stoppable
from step_runtime.sources.open import find_sources, open_source, source_names
from step_runtime.tracing.tracer import READER, SILENT, Tracer

DEFAULT_EVERY_S = Fraction(1)
DEFAULT_FRAMES_FPS = Fraction(30)
_CLIPS_WAITING = 2  # 17 MB each at full size


class Detector:
    """Runs a model on clips or on sources; a context manager that frees the sessions.

    Threads may share one: their calls take turns, and each gets its own clips' detections. A process that is forked
    after it was opened may not: it opens its own.

    Args:
        backend: a loaded model; `Detector.open` makes one.
        tracer: is told what `run` does, and when.
    """

    def __init__(self, backend: Backend, *, tracer: Tracer = SILENT) -> None:
        self.backend = backend
        self.tracer = tracer

    @classmethod
    def open(
        cls,
        model: str | Path,
        backend: BackendName = "auto",
        *,
        loop: Loop | None = None,
        num_steps: int | None = None,
        device: str = "auto",
        threads: int | None = None,
        passed_over: Callable[[str, str], None] = lambda _name, _reason: None,
        tracer: Tracer = SILENT,
    ) -> Self:
        """Loads a bundle (or, with torch, a checkpoint); see `open_backend` for the arguments.

        Raises:
            StepError: no such model, backend, loop, step count or device.
        """
        return cls(
            open_backend(
                Path(model),
                backend=backend,
                loop=loop,
                num_steps=num_steps,
                device=device,
                threads=threads,
                passed_over=passed_over,
                tracer=tracer,
            ),
            tracer=tracer,
        )

    @property
    def config(self) -> StepConfig:
        """The model's architecture."""
        return self.backend.config

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model."""
        self.backend.close()

    def detect(self, frames: NDArray[np.uint8]) -> Detections[Array]:
        """Detections of clips.

        Args:
            frames: uint8 [B, F, H, W, 3] RGB (F = 36, H = W = 400 for the release), any B: a model that was exported
                for a fixed batch is called as often as needed.

        Raises:
            ValueError: frames of another dtype, shape or layout; the message says what was expected and what came.
        """
        if not isinstance(frames, np.ndarray):
            raise ValueError(f"frames: expected a NumPy array, got {type(frames).__name__}")
        check_frames(frames.shape, frames.dtype.name, self.config)
        frames = np.ascontiguousarray(frames)
        size = self.backend.max_batch or len(frames)
        if len(frames) <= size:
            return self._submit(frames).result()
        # All calls are of the same size: what a GPU prepares for a size it need not prepare again.
        parts: list[Detections[Array]] = []
        under_way: deque[_Call] = deque()
        for start in range(0, len(frames), size):
            under_way.append(self._submit(frames[start : start + size], size=size))
            if len(under_way) >= self.backend.depth:
                parts.append(under_way.popleft().result())
        parts += [call.result() for call in under_way]
        return Detections(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))

    def _submit(self, frames: NDArray[np.uint8], *, size: int = 1) -> "_Call":
        """Starts on clips, no more than the backend takes; they are filled up to at least `size`."""
        missing = max(self.backend.min_batch, size) - len(frames)
        if missing > 0:  # filled up by repeating the last clip, whose extra results are cut off
            filled = np.concatenate((frames, np.repeat(frames[-1:], missing, axis=0)))
            return _Call(self.backend.submit(filled), len(frames))
        return _Call(self.backend.submit(frames), len(frames))

    def run(
        self,
        source: str | Path | Source,
        *,
        every_s: Fraction | None = DEFAULT_EVERY_S,
        frames_fps: Fraction = DEFAULT_FRAMES_FPS,
        state: RunState | None = None,
        reuse_backbone: bool = False,
        reuse_margin: int = MARGIN,
    ) -> Iterator[KeyFrame]:
        """Detections of a source's key frames, in order, while a thread decodes ahead.

        Args:
            source: video file, URL, camera index, folder of videos or of frames, or an opened `Source`.
            every_s: seconds between key frames; None makes every source frame one (the release's demo).
            frames_fps: frames per second of a folder of frames.
            state: is kept up to date while the run goes on.
            reuse_backbone: run the backbone once for what neighbouring clips share; needs the step loop and a multiple
                of 1/3 s between key frames. Approximate, and each key frame waits for its window: see `feature_reuse`.
            reuse_margin: feature frames dropped at each end of a backbone call then.

        Yields:
            One `KeyFrame` each. A live source's oldest clips are dropped when the model falls behind.

        Raises:
            StepError: the source cannot be opened or nothing in it can be decoded, or `reuse_backbone` cannot be had.
                One that breaks midway ends early and leaves a line in `state.problems`.
        """
        if every_s is not None and not every_s > 0:  # a NaN is not either
            raise StepError(f"every_s is {float(every_s):g}; it must be above 0")
        state = state or RunState()
        reuse = plan_reuse(self.backend, self.config, every_s=every_s, margin=reuse_margin) if reuse_backbone else None
        if isinstance(source, (str, Path)):
            locations = find_sources(str(source), frames_fps=frames_fps)
            for location, name in zip(locations, source_names(locations), strict=True):
                opened = open_source(location, frames_fps=frames_fps, name=name)
                yield from self._run_one(opened, every_s, state, reuse)
        else:
            yield from self._run_one(source, every_s, state, reuse)

    def _run_one(
        self, source: Source, every_s: Fraction | None, state: RunState, reuse: WindowPlan | None
    ) -> Iterator[KeyFrame]:
        state.decoded_s = Fraction(0)
        if reuse is not None:
            yield from self._run_reusing(source, reuse, state)
            return
        dropped_before = state.dropped_clips
        clips: Channel[Clip] = Channel(capacity=_CLIPS_WAITING, drop_oldest=source.is_live)
        buffer = ClipBuffer(
            config=self.config,
            every_s=every_s,
            interval_s=source.interval_s,
            slack_s=source.slack_s,
            tracer=self.tracer,
        )
        reader = start_reader(source, buffer, clips, state, self.tracer)
        under_way: deque[tuple[Clip, _Call]] = deque()
        try:
            for clip in self.tracer.each("wait for a clip", clips, waits_for=READER):
                start_s = time.monotonic()
                under_way.append((clip, self._submit(clip.frames[None])))
                state.inference_s += time.monotonic() - start_s
                # A result is taken when the backend has no room for another clip, or when none is waiting for it.
                while len(under_way) >= self.backend.depth or (under_way and not clips.has_waiting):
                    state.dropped_clips = dropped_before + clips.dropped
                    yield self._finish(*under_way.popleft(), source=source, state=state)
            while under_way:
                yield self._finish(*under_way.popleft(), source=source, state=state)
        finally:
            clips.stop()
            if isinstance(source, Stoppable):
                source.stop()
            reader.join()
            state.dropped_clips = dropped_before + clips.dropped
        state.notes += source.notes
        if source.problem is not None:
            state.problems.append(source.problem)

    def _run_reusing(self, source: Source, plan: WindowPlan, state: RunState) -> Iterator[KeyFrame]:
        """`_run_one` with windows for clips. Windows that come late cost every clip that needs them, so a live source
        drops key frames after the backbone first, and windows only when the backbone alone is too slow."""
        dropped_before, started = state.dropped_clips, 0
        # As many windows wait as a clip may need: those that were dropped would else leave no clip whole.
        capacity = max(_CLIPS_WAITING, plan.windows_a_clip)
        windows: Channel[Window] = Channel(capacity=capacity, drop_runs=source.is_live)
        buffer = WindowBuffer(
            config=self.config,
            plan=plan,
            interval_s=source.interval_s,
            slack_s=source.slack_s,
            tracer=self.tracer,
        )
        reader = start_reader(source, buffer, windows, state, self.tracer)
        store = FeatureStore(plan)
        under_way: deque[tuple[KeyMoment, _Call]] = deque()
        try:
            for window in self.tracer.each("wait for a clip", windows, waits_for=READER):
                start_s = time.monotonic()
                store.add(window.first_group, extract_one(self.backend, window.frames[None]))
                state.inference_s += time.monotonic() - start_s
                for key in window.keys:
                    is_last = key is window.keys[-1]
                    is_late = source.is_live and windows.has_waiting and not is_last
                    clip = None if is_late else store.clip(key.group)
                    if clip is not None:
                        start_s = time.monotonic()
                        under_way.append((key, _Call(submit_one(self.backend, clip), 1)))
                        state.inference_s += time.monotonic() - start_s
                        started += 1
                    state.dropped_clips = dropped_before + key.number + 1 - started
                    while len(under_way) >= self.backend.depth or (under_way and is_last and not windows.has_waiting):
                        yield self._finish(*under_way.popleft(), source=source, state=state)
            while under_way:
                yield self._finish(*under_way.popleft(), source=source, state=state)
            state.dropped_clips = dropped_before + buffer.key_count - started
        finally:
            windows.stop()
            if isinstance(source, Stoppable):
                source.stop()
            reader.join()
        state.notes += source.notes
        if source.problem is not None:
            state.problems.append(source.problem)

    def _finish(self, clip: Clip | KeyMoment, call: "_Call", *, source: Source, state: RunState) -> KeyFrame:
        start_s = time.monotonic()
        detections = call.result()
        state.inference_s += time.monotonic() - start_s
        return KeyFrame(
            video=source.name,
            time_s=clip.time_s,
            scheduled_s=clip.scheduled_s,
            frame=clip.frame,
            width_px=clip.width_px,
            height_px=clip.height_px,
            detections=detections,
            lag_s=time.monotonic() - clip.ready_at_s,
        )


@dataclass(frozen=True)
class _Call:
    """A call under way: the backend's, and how many of its clips were asked for."""

    pending: Pending
    count: int

    def result(self) -> Detections[Array]:
        return Detections(*(rows[: self.count] for rows in self.pending.result()))
