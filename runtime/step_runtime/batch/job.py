"""One video of an archive: detected on, and its tables published under their names when they are whole."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from step.errors import StepError
from step.files.atomic import atomic_path
from step_runtime.batch.fetch import local_file
from step_runtime.batch.messages import RunVideo, VideoDone
from step_runtime.batch.options import WorkerOptions
from step_runtime.batch.tables import VideoTables
from step_runtime.batch.video_list import shown_location
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.clips.run_state import RunState
from step_runtime.detector import Detector
from step_runtime.sources.base import Source
from step_runtime.sources.open import open_source


class VideoError(StepError):
    """What is wrong with a video; other videos are worth running."""


def run_video(detector: Detector, request: RunVideo, options: WorkerOptions) -> VideoDone:
    """Runs a video into its tables.

    Raises:
        VideoError: it cannot be fetched, opened or decoded; nothing is written.
        StepError: nothing can be written.
    """
    start_s = time.monotonic()
    state = RunState()
    with contextlib.ExitStack() as stack:
        source = _open(request, options, stack)
        tables = _open_tables(request, detector, options, stack)
        for key_frame in _key_frames(detector, source, request, options, state):
            tables.add(key_frame)
        tables.close()
    return VideoDone(
        seconds=time.monotonic() - start_s,
        video_s=float(state.decoded_s + source.interval_s) if tables.clips else 0.0,
        clips=tables.clips,
        dropped_clips=state.dropped_clips,
        people=tables.people,
        rows=tables.rows,
        problem="; ".join(_shown(problem, source, request) for problem in state.problems) or None,
    )


def _open(request: RunVideo, options: WorkerOptions, stack: contextlib.ExitStack) -> Source:
    try:
        path = stack.enter_context(local_file(request.location, scratch=options.scratch))
        return open_source(Path(path), frames_fps=options.settings.exact_frames_fps, name=request.name)
    except StepError as error:
        raise VideoError(str(error)) from error


def _open_tables(
    request: RunVideo, detector: Detector, options: WorkerOptions, stack: contextlib.ExitStack
) -> VideoTables:
    people = stack.enter_context(atomic_path(request.people))
    detections = None if request.detections is None else stack.enter_context(atomic_path(request.detections))
    threshold = options.settings.score_threshold
    return VideoTables(people, detections, config=detector.config, score_threshold=threshold)


def _key_frames(
    detector: Detector, source: Source, request: RunVideo, options: WorkerOptions, state: RunState
) -> Iterator[KeyFrame]:
    """What goes wrong in here is the video's fault, not that of the place where its tables go."""
    settings = options.settings
    try:
        yield from detector.run(
            source,
            every_s=settings.every_s,
            state=state,
            reuse_backbone=settings.reuse_backbone,
            clips_a_call=options.clips_a_call,
        )
    except (StepError, OSError) as error:
        raise VideoError(_shown(str(error), source, request)) from error


def _shown(problem: str, source: Source, request: RunVideo) -> str:
    """Says the URL in place of the file that it was fetched to."""
    path = str(getattr(source, "location", request.location))
    return problem.replace(path, shown_location(request.location))
