"""One source through the detector into files: what `step-run` does for each source."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from step.errors import StepError
from step.files import atomic_files
from step_runtime.detector import Detector
from step_runtime.key_frame import KeyFrame
from step_runtime.outputs.live_overlay import LiveOverlay
from step_runtime.outputs.run_writer import RunWriter
from step_runtime.run_state import RunState
from step_runtime.sources.base import Source
from step_runtime.sources.open import open_source
from step_runtime.trace import LIVE_OVERLAY

RESULTS = ("detections.jsonl", "detections.csv", "overlay.mp4")
"""Files of a run; a run without an overlay takes the earlier run's away."""


@dataclass
class RunSummary:
    """What a run did, for the console.

    Attributes:
        video: name of the source.
        key_frames: how many were detected on.
        people: boxes above the score threshold, over all key frames.
        actions: class id -> key-frame boxes that show it.
        worst_lag_s: longest wait from a clip being complete to its detections.
        elapsed_s: wall time.
        state: counters of the run.
        interrupted: stopped with Ctrl-C; what was done until then is kept.
    """

    video: str
    key_frames: int = 0
    people: int = 0
    actions: Counter[int] = field(default_factory=Counter)
    worst_lag_s: float = 0.0
    elapsed_s: float = 0.0
    state: RunState = field(default_factory=RunState)
    interrupted: bool = False


def record(
    detector: Detector,
    location: str | Path,
    folder: Path,
    *,
    every_s: Fraction | None,
    frames_fps: Fraction,
    score_threshold: float,
    overlay: bool,
    name: str | None = None,
    reuse_backbone: bool = False,
    progress: Callable[[Source, KeyFrame, RunState], None] = lambda _source, _key_frame, _state: None,
) -> RunSummary:
    """Runs a source and writes detections.jsonl, detections.csv and (with `overlay`) overlay.mp4.

    Args:
        detector: an open detector; its tracer is told what all threads do.
        location: one entry of `find_sources`.
        folder: where the files appear, all at once, when the run ends or is interrupted.
        every_s: seconds between key frames; None makes every source frame one.
        frames_fps: frames per second of a folder of frames.
        score_threshold: of people in the JSONL and the overlay.
        overlay: whether to write the overlay.
        name: what results call the source; its own name if None.
        reuse_backbone: see `Detector.run`.
        progress: is called after each key frame.

    Raises:
        StepError: the source cannot be opened, the model fails, or the files cannot be written.
    """
    source = open_source(location, frames_fps=frames_fps, name=name)
    summary = RunSummary(video=source.name)
    start_s = time.monotonic()
    with atomic_files(folder, names=RESULTS) as scratch:
        live = None
        if overlay and source.is_live:
            live = LiveOverlay(
                scratch / "overlay.mp4",
                source,
                config=detector.config,
                score_threshold=score_threshold,
                tracer=detector.tracer,
            )
            source = live.tapped
        writer = RunWriter(
            scratch,
            reopen=(lambda: open_source(location, frames_fps=frames_fps)) if overlay and live is None else None,
            config=detector.config,
            score_threshold=score_threshold,
            tracer=detector.tracer,
        )
        finished = False
        try:
            try:
                for key_frame in detector.run(
                    source, every_s=every_s, state=summary.state, reuse_backbone=reuse_backbone
                ):
                    writer.put(key_frame)
                    if live is not None:
                        live.show(key_frame)
                    summary.key_frames += 1
                    summary.worst_lag_s = max(summary.worst_lag_s, key_frame.lag_s)
                    progress(source, key_frame, summary.state)
            except KeyboardInterrupt:
                summary.interrupted = True
            if not summary.key_frames:
                raise StepError(f"{location}: stopped before the first key frame; nothing written")
            try:
                writer.finish(draw_rest=not summary.interrupted)
            except KeyboardInterrupt:
                summary.interrupted = True
                writer.finish(draw_rest=False)
            if live is not None:
                with detector.tracer.span("wait for the overlay", waits_for=LIVE_OVERLAY):
                    live.finish()
            finished = True
        finally:
            if not finished:
                writer.abort()
                if live is not None:
                    live.abort()
    summary.people, summary.actions = writer.people, writer.actions
    summary.elapsed_s = time.monotonic() - start_s
    return summary
