"""`Detector`: a loaded model that takes clips or whole sources."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from step.arguments import check_flag, check_whole, exact_interval, exact_rate
from step.clips import check_frames
from step.config import StepConfig
from step.detections import Detections
from step.errors import ArgumentError, StepError
from step.shown import quoted
from step.turns import CLOSED
from step_runtime.backends.base import Array, Backend, GivesEveryStep, Loop
from step_runtime.backends.calls import Call, submit_clips
from step_runtime.backends.select import BackendName, open_backend
from step_runtime.clips.feature_reuse import MARGIN, plan_reuse
from step_runtime.clips.feature_windows import WindowPlan
from step_runtime.clips.frame_stream import FrameStream, StreamOptions
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.clips.run_loop import run_loop
from step_runtime.clips.run_state import RunState
from step_runtime.clips.starters import ClipStarter, GroupStarter, WindowStarter
from step_runtime.sources.base import Source
from step_runtime.sources.open import SourceArgument, source_openers
from step_runtime.tracing.tracer import SILENT, Tracer

DEFAULT_EVERY_S = Fraction(1)
DEFAULT_FRAMES_FPS = Fraction(30)


class Detector:
    """Runs a model on clips or on sources; a context manager that frees the sessions.

    Threads may share one: their calls take turns, and each gets its own clips' detections. A process that is forked
    after it was opened may not: it opens its own. Arrays that it gives are the caller's own, contiguous, and no later
    call changes them. Closed, every method raises a RuntimeError that says so; `config` can still be asked for.

    Args:
        backend: a loaded model; `Detector.open` makes one.
        tracer: is told what `run` does, and when.
    """

    def __init__(self, backend: Backend, *, tracer: Tracer = SILENT) -> None:
        self.backend = backend
        self.tracer = tracer
        self._is_closed = False

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
            StepError: no such model, backend, loop, step count or device; what was loaded until then is freed.
        """
        if not isinstance(model, (str, Path)):
            raise ArgumentError(f"`model` is {quoted(model)}; give the path of a bundle or of a checkpoint, or toy")
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
        self._check_open()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model, after the calls that are under way; nothing happens the second time."""
        self.backend.close()
        self._is_closed = True

    def detect(self, frames: NDArray[np.uint8]) -> Detections[Array]:
        """Detections of clips.

        Args:
            frames: uint8 [B, F, H, W, 3] RGB (F = 36, H = W = 400 for the release), any B: a model that was exported
                for a fixed batch is called as often as needed.

        Raises:
            ValueError: frames of another dtype, shape or layout; the message says what was expected and what came.
            RuntimeError: the model is closed.
        """
        self._check_open()
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
        self._check_open()
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
            RuntimeError: the model is closed.
        """
        self._check_open()
        backend = self.backend
        if backend.loop != "steps" or not isinstance(backend, GivesEveryStep):
            raise StepError(f"the {backend.loop} loop of {backend.name} gives the last step only")
        self._check(frames)
        if len(frames) != 1:
            raise ValueError(f"frames: expected one clip, got {len(frames)}")
        filled = np.repeat(frames, backend.min_batch, axis=0)
        by_step = backend.detect_every_step(filled)
        return [Detections(*(np.ascontiguousarray(rows[:1]) for rows in found)) for found in by_step]

    def run(
        self,
        source: SourceArgument | Sequence[SourceArgument],
        *,
        every_s: float | Fraction | None = DEFAULT_EVERY_S,
        frames_fps: float | Fraction = DEFAULT_FRAMES_FPS,
        state: RunState | None = None,
        reuse_backbone: bool = False,
        reuse_margin: int = MARGIN,
        clips_a_call: int = 1,
    ) -> Iterator[KeyFrame]:
        """Detections of a source's key frames, in order, while a thread decodes ahead.

        Arguments are checked, and files looked for, when it is called; sources are opened when their turn comes.

        Args:
            source: video file, URL, camera's number (an int, or as a string), folder of videos or of frames, a `Source`
                of one's own, or a list of these, which are run one after the other.
            every_s: seconds between key frames, a float for the simplest fraction beside it; None makes every source
                frame one (the release's demo).
            frames_fps: frames per second of a folder of frames; 29.97 is 30000/1001.
            state: is kept up to date while the run goes on.
            reuse_backbone: run the backbone once for what neighbouring clips share; needs the step loop and a multiple
                of 1/3 s between key frames. Approximate, and each key frame waits for its window: see `feature_reuse`.
            reuse_margin: feature frames dropped at each end of a backbone call then.
            clips_a_call: clips that the model takes at a time where it can, of sources that are not live: key frames
                come later, and a GPU does more of them a second. Not together with `reuse_backbone`.

        Returns:
            One `KeyFrame` each, as they are done. A live source's oldest clips are dropped when the model falls behind.

        Raises:
            StepError: the source cannot be opened or nothing in it can be decoded, or `reuse_backbone` cannot be had.
                One that breaks midway ends early and leaves a line in `state.problems`.
            RuntimeError: the model is closed.
        """
        self._check_open()
        every_s = None if every_s is None else exact_interval("every_s", every_s)
        check_flag("reuse_backbone", reuse_backbone)
        check_whole("reuse_margin", reuse_margin, least=0)
        check_whole("clips_a_call", clips_a_call, least=1)
        if reuse_backbone and clips_a_call > 1:
            raise ArgumentError(f"`clips_a_call` is {clips_a_call} with `reuse_backbone`; it goes with 1 only")
        if state is not None and not isinstance(state, RunState):
            raise ArgumentError(f"`state` is {quoted(state)}; give a RunState")
        reuse = plan_reuse(self.backend, self.config, every_s=every_s, margin=reuse_margin) if reuse_backbone else None
        openers = source_openers(source, frames_fps=exact_rate("frames_fps", frames_fps))
        return self._run_each(openers, every_s, state or RunState(), reuse, clips_a_call)

    def stream(
        self,
        *,
        fps: float | Fraction,
        size: tuple[int, int] | None = None,
        every_s: float | Fraction | None = DEFAULT_EVERY_S,
        slack_s: float | Fraction = 0,
        name: str = "stream",
    ) -> FrameStream:
        """Key frames of a caller's own frames, which it pushes as they come: the same as of a file of those frames.

        Args:
            fps: frames a second, about; their times are said with each. 29.97 is 30000/1001.
            size: width and height of the frames in pixels; None takes the first one's.
            every_s: seconds between key frames, see `run`; None makes every frame one.
            slack_s: how far times may be off because they were rounded: 0.001 for milliseconds.
            name: what results call the stream.

        Raises:
            StepError: a value out of range or of another type.
            RuntimeError: the model is closed.
        """
        self._check_open()
        options = StreamOptions.of(fps=fps, size=size, every_s=every_s, slack_s=slack_s, name=name)
        return FrameStream(self.backend, options, tracer=self.tracer, check_open=self._check_open)

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(CLOSED)

    def _check(self, frames: object) -> None:
        if not isinstance(frames, np.ndarray):
            raise ValueError(f"frames: expected a NumPy array, got {type(frames).__name__}")
        check_frames(frames.shape, frames.dtype.name, self.config)

    def _run_each(
        self,
        openers: list[Callable[[], Source]],
        every_s: Fraction | None,
        state: RunState,
        reuse: WindowPlan | None,
        clips_a_call: int,
    ) -> Iterator[KeyFrame]:
        depth, tracer = self.backend.depth, self.tracer
        size = min(clips_a_call, self.backend.max_batch or clips_a_call)
        for open_next in openers:
            self._check_open()
            source = open_next()
            state.decoded_s = Fraction(0)
            if reuse is None and size > 1 and not source.is_live:
                groups = GroupStarter(
                    self.backend, source, every_s=every_s, clips_a_call=size, state=state, tracer=tracer
                )
                yield from run_loop(source, groups, depth=depth * size, state=state, tracer=tracer)
            elif reuse is None:
                clips = ClipStarter(self.backend, source, every_s=every_s, state=state, tracer=tracer)
                yield from run_loop(source, clips, depth=depth, state=state, tracer=tracer)
            else:
                windows = WindowStarter(self.backend, source, plan=reuse, state=state, tracer=tracer)
                yield from run_loop(source, windows, depth=depth, state=state, tracer=tracer)
