"""`Detector`: a loaded model that takes clips or whole sources."""

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from step.clips import check_frames
from step.config import StepConfig
from step.detections import Detections
from step.errors import ArgumentError, StepError
from step_runtime.backends.base import Array, Backend, GivesEveryStep, Loop
from step_runtime.backends.calls import Call, submit_clips
from step_runtime.backends.select import BackendName, open_backend
from step_runtime.clips.feature_reuse import MARGIN, plan_reuse
from step_runtime.clips.feature_windows import WindowPlan
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.clips.run_loop import run_loop
from step_runtime.clips.run_state import RunState
from step_runtime.clips.starters import ClipStarter, WindowStarter
from step_runtime.sources.base import Source
from step_runtime.sources.open import find_sources, open_source, source_names
from step_runtime.tracing.tracer import SILENT, Tracer

DEFAULT_EVERY_S = Fraction(1)
DEFAULT_FRAMES_FPS = Fraction(30)


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
        skipped: Callable[[str, str], None] = lambda _name, _reason: None,
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
                skipped=skipped,
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
        self._check(frames)
        frames = np.ascontiguousarray(frames)
        size = self.backend.max_batch or len(frames)
        if len(frames) <= size:
            return submit_clips(self.backend, frames).result()
        # All calls are of the same size: what a GPU prepares for a size it need not prepare again.
        parts: list[Detections[Array]] = []
        under_way: deque[Call] = deque()
        for start in range(0, len(frames), size):
            under_way.append(submit_clips(self.backend, frames[start : start + size], size=size))
            if len(under_way) >= self.backend.depth:
                parts.append(under_way.popleft().result())
        parts += [call.result() for call in under_way]
        return Detections(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))

    @property
    def gives_every_step(self) -> bool:
        """Whether `detect_every_step` can be had: the backend runs the step loop, and says what each step gives."""
        return self.backend.loop == "steps" and isinstance(self.backend, GivesEveryStep)

    def detect_every_step(self, frames: NDArray[np.uint8]) -> list[Detections[Array]]:
        """Detections of one clip after each progressive step, in one pass.

        Args:
            frames: uint8 [1, F, H, W, 3] RGB.

        Returns:
            Detections of that clip, from the first step on.

        Raises:
            StepError: the backend runs the fused graph, or does not say what each step gives.
            ValueError: frames of another dtype, shape or layout.
        """
        backend = self.backend
        if backend.loop != "steps" or not isinstance(backend, GivesEveryStep):
            raise StepError(f"the {backend.loop} loop of {backend.name} gives the last step only")
        self._check(frames)
        if len(frames) != 1:
            raise ValueError(f"frames: expected one clip, got {len(frames)}")
        filled = np.repeat(frames, backend.min_batch, axis=0)
        return [Detections(*(rows[:1] for rows in found)) for found in backend.detect_every_step(filled)]

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
            raise ArgumentError(f"`every_s` is {float(every_s):g}; it must be above 0")
        state = state or RunState()
        reuse = plan_reuse(self.backend, self.config, every_s=every_s, margin=reuse_margin) if reuse_backbone else None
        if isinstance(source, (str, Path)):
            locations = find_sources(source, frames_fps=frames_fps)
            for location, name in zip(locations, source_names(locations), strict=True):
                opened = open_source(location, frames_fps=frames_fps, name=name)
                yield from self._run_one(opened, every_s, state, reuse)
        else:
            yield from self._run_one(source, every_s, state, reuse)

    def _check(self, frames: object) -> None:
        if not isinstance(frames, np.ndarray):
            raise ValueError(f"frames: expected a NumPy array, got {type(frames).__name__}")
        check_frames(frames.shape, frames.dtype.name, self.config)

    def _run_one(
        self, source: Source, every_s: Fraction | None, state: RunState, reuse: WindowPlan | None
    ) -> Iterator[KeyFrame]:
        state.decoded_s = Fraction(0)
        depth, tracer = self.backend.depth, self.tracer
        if reuse is None:
            clips = ClipStarter(self.backend, source, every_s=every_s, state=state, tracer=tracer)
            yield from run_loop(source, clips, depth=depth, state=state, tracer=tracer)
        else:
            windows = WindowStarter(self.backend, source, plan=reuse, state=state, tracer=tracer)
            yield from run_loop(source, windows, depth=depth, state=state, tracer=tracer)
