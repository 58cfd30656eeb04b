"""One source through the detector into files: what `step-run` does for each source."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

from step.errors import ArgumentError, StepError
from step.files.atomic import atomic_files
from step.video.files import is_url
from step_runtime.clips.key_frame import DEFAULT_SCORE_THRESHOLD, KeyFrame
from step_runtime.clips.run_state import RunState
from step_runtime.detector import DEFAULT_EVERY_S, DEFAULT_FRAMES_FPS, Detector
from step_runtime.outputs.live_folder import keep_live_run, live_folder
from step_runtime.outputs.live_overlay import LiveOverlay
from step_runtime.outputs.parquet_table import parquet_is_possible
from step_runtime.outputs.run_manifest import RUN_FILE, RunManifest, Status, read_run, write_run
from step_runtime.outputs.run_page import RUN_PAGE
from step_runtime.outputs.run_summary import RunSummary
from step_runtime.outputs.run_writer import RunWriter
from step_runtime.sources.base import Source
from step_runtime.sources.live import DEFAULT_OPTIONS, LiveOptions, LiveSource
from step_runtime.sources.open import open_source
from step_runtime.sources.stream import shown_url
from step_runtime.tracing.tracer import LIVE_OVERLAY

RESULTS = ("detections.jsonl", "detections.csv", "people.csv", "people.parquet", "overlay.mp4", RUN_FILE, RUN_PAGE)
"""Files of a run; a run without an overlay or a page takes the earlier run's away."""


@dataclass(frozen=True)
class RunOptions:
    """How a source is run.

    Attributes:
        every_s: seconds between key frames; None makes every source frame one.
        frames_fps: frames per second of a folder of frames.
        score_threshold: of people in the tables and the overlay.
        overlay: whether to write the overlay.
        reuse_backbone: see `Detector.run`.
        overwrite: whether the results of an earlier run in the same folder may be replaced.
        live: what to do when a stream or camera stands still or breaks.
    """

    every_s: Fraction | None = DEFAULT_EVERY_S
    frames_fps: Fraction = DEFAULT_FRAMES_FPS
    score_threshold: float = DEFAULT_SCORE_THRESHOLD
    overlay: bool = True
    reuse_backbone: bool = False
    overwrite: bool = False
    live: LiveOptions = DEFAULT_OPTIONS


ProgressCallback = Callable[[Source, KeyFrame, RunState], None]


def run_source(
    detector: Detector,
    location: str | Path,
    folder: Path,
    options: RunOptions = RunOptions(),
    *,
    name: str | None = None,
    progress: ProgressCallback = lambda _source, _key_frame, _state: None,
) -> RunSummary:
    """Runs a source and writes its tables, run.json and (with `overlay`) overlay.mp4; see `RESULTS`.

    Args:
        detector: an open detector; its tracer records what all threads do.
        location: one entry of `find_sources`.
        folder: where the files appear: all at once when the run of a file ends or is interrupted; a live source's grow
            there while it runs, and an earlier run's are moved into a folder there first.
        options: how it is run.
        name: what results call the source; its own name if None.
        progress: is called after each key frame.

    Raises:
        ArgumentError: the folder holds the results of another run.
        StepError: the source cannot be opened, the model fails, or the files cannot be written. What a live run has
            written is kept.
    """
    source = open_source(location, frames_fps=options.frames_fps, name=name, live=options.live)
    summary = RunSummary(video=source.name)
    shown = shown_url(location) if isinstance(location, str) and is_url(location) else str(location)
    manifest = RunManifest(
        status="running", source=shown, video=source.name, is_live=source.is_live, started=datetime.now(UTC)
    )
    start_s = time.monotonic()
    with _place(folder, source, overwrite=options.overwrite) as place, _manifest_kept(place, manifest, source, summary):
        live = _live_overlay(place, source, detector, options)
        writer = RunWriter(
            place,
            target=folder,
            reopen=_reopen(location, options) if options.overlay and live is None else None,
            config=detector.config,
            score_threshold=options.score_threshold,
            parquet=not source.is_live and parquet_is_possible(),
            tracer=detector.tracer,
        )
        finished = False
        try:
            _detect(detector, source if live is None else live.tapped, options, summary, writer, live, progress)
            if not summary.key_frames:
                raise StepError(f"{shown}: stopped before the first key frame; nothing written")
            _finish(detector, summary, writer, live)
            finished = True
        finally:
            if not finished:
                writer.abort()
                if live is not None:
                    live.abort()
    summary.seen = writer.seen
    summary.files = tuple(name for name in RESULTS if (folder / name).exists())
    summary.elapsed_s = time.monotonic() - start_s
    return summary


def check_free(folder: Path) -> None:
    """Refuses a folder that holds the results of a run; those of a live run are moved aside instead, where one begins.

    Raises:
        ArgumentError: it holds some.
    """
    found = [name for name in RESULTS if (folder / name).exists()]
    earlier = read_run(folder)
    if found and not (earlier is not None and earlier.is_live):
        raise ArgumentError(
            f"{folder}: holds the results of a run already; replace them with `overwrite`, or name another with `out`"
        )


def check_place(folder: Path) -> None:
    """Refuses, before long work, a folder that cannot be made or written to.

    Raises:
        ArgumentError: a file is in its way, or this user may not write there.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ArgumentError(f"{folder}: {there} is a file; name a folder with `out`")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ArgumentError(f"{folder}: {there} may not be written to; name another folder with `out`")


def _place(folder: Path, source: Source, *, overwrite: bool) -> contextlib.AbstractContextManager[Path]:
    """Where the files are written."""
    if source.is_live:
        return live_folder(folder, names=RESULTS, evidence=RESULTS[0])
    if not overwrite:
        check_free(folder)
    earlier = read_run(folder)
    if earlier is not None and earlier.is_live:  # it cannot be had again
        keep_live_run(folder, RESULTS)
    return atomic_files(folder, names=RESULTS)


@contextlib.contextmanager
def _manifest_kept(place: Path, manifest: RunManifest, source: Source, summary: RunSummary) -> Iterator[None]:
    """run.json says that the run is under way, and at its end how it ended."""
    write_run(place, manifest)
    status: Status = "failed"
    problem: str | None = None
    try:
        yield
        problem = "; ".join(summary.state.problems) or None
        status = "failed" if problem else "interrupted" if summary.interrupted else "finished"
    except StepError as error:
        problem = str(error)
        raise
    finally:
        if isinstance(source, LiveSource):
            summary.dropped_frames, summary.reconnects = source.dropped_frames, source.reconnects
        changes = {
            "status": status,
            "ended": datetime.now(UTC),
            "key_frames": summary.key_frames,
            "dropped_clips": summary.state.dropped_clips,
            "dropped_frames": summary.dropped_frames,
            "reconnects": summary.reconnects,
            "problem": problem,
            "notes": tuple(summary.state.notes),
        }
        with contextlib.suppress(OSError):  # on a full disk it says "running", as after a kill
            write_run(place, manifest.model_copy(update=changes))


def _live_overlay(place: Path, source: Source, detector: Detector, options: RunOptions) -> LiveOverlay | None:
    if not options.overlay or not source.is_live:
        return None
    return LiveOverlay(
        place / "overlay.mp4",
        source,
        config=detector.config,
        score_threshold=options.score_threshold,
        tracer=detector.tracer,
    )


def _reopen(location: str | Path, options: RunOptions) -> Callable[[], Source]:
    return lambda: open_source(location, frames_fps=options.frames_fps, live=options.live)


def _detect(
    detector: Detector,
    source: Source,
    options: RunOptions,
    summary: RunSummary,
    writer: RunWriter,
    live: LiveOverlay | None,
    progress: ProgressCallback,
) -> None:
    """Hands every key frame on until the source's end or Ctrl-C."""
    try:
        for key_frame in detector.run(
            source, every_s=options.every_s, state=summary.state, reuse_backbone=options.reuse_backbone
        ):
            writer.put(key_frame)
            if live is not None:
                live.show(key_frame)
            summary.key_frames += 1
            summary.worst_lag_s = max(summary.worst_lag_s, key_frame.lag_s)
            progress(source, key_frame, summary.state)
    except KeyboardInterrupt:
        summary.interrupted = True


def _finish(detector: Detector, summary: RunSummary, writer: RunWriter, live: LiveOverlay | None) -> None:
    """Waits for the writers; Ctrl-C leaves out what could still be drawn."""
    try:
        writer.finish(draw_rest=not summary.interrupted)
    except KeyboardInterrupt:
        summary.interrupted = True
        writer.finish(draw_rest=False)
    if live is not None:
        with detector.tracer.span("wait for the overlay", waits_for=LIVE_OVERLAY):
            live.finish()
