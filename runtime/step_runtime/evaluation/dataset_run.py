"""Runs a model over the key frames of a data set in AVA's format, and writes results in AVA's csv format."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step.data.dataset_folder import KeyFrameClips
from step.data.frame_store import CLIP_FRAMES
from step.detections import Detections
from step.errors import StepError
from step.evaluation.ava_rows import detection_rows, write_rows
from step.files.atomic import atomic_path
from step_runtime.backends.base import Array
from step_runtime.detector import Detector

ProgressCallback = Callable[[int, int], None]
_LOADING = 2  # clips that are read ahead


def write_results(
    detector: Detector, data: KeyFrameClips, output: Path, *, progress: ProgressCallback = lambda _done, _total: None
) -> list[float]:
    """Runs a model on every key frame and writes a csv of its detections.

    Args:
        detector: the model.
        data: the data set.
        output: the file to write.
        progress: is called with how many key frames are done, of how many.

    Returns:
        Seconds that the model took for each clip.

    Raises:
        StepError: a clip that cannot be read, a model of longer clips than the data set gives, or nowhere to write.
    """
    return _write(detector, data, [output], lambda clip: [detector.detect(clip)], progress)


def write_results_of_each_step(
    detector: Detector,
    data: KeyFrameClips,
    outputs: list[Path],
    *,
    progress: ProgressCallback = lambda _done, _total: None,
) -> list[float]:
    """Runs a model on every key frame and writes a csv of its detections after each step, in one pass.

    Args:
        detector: the model; see `Detector.gives_every_step`.
        data: the data set.
        outputs: the files to write, from the first step on.
        progress: is called with how many key frames are done, of how many.

    Returns:
        Seconds that the model took for each clip, with the detection after each step.

    Raises:
        StepError: see `write_results`.
    """
    return _write(detector, data, outputs, detector.detect_every_step, progress)


def _write(
    detector: Detector,
    data: KeyFrameClips,
    outputs: list[Path],
    detect: Callable[[NDArray[np.uint8]], list[Detections[Array]]],
    progress: ProgressCallback,
) -> list[float]:
    config = detector.config
    if config.clip_frames > CLIP_FRAMES:
        raise StepError(
            f"the model takes clips of {config.clip_frames} frames; AVA's layout gives {CLIP_FRAMES} a key frame"
        )
    key_frames = data.key_frames()
    times_s: list[float] = []
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(atomic_path(output)) for output in outputs]
        files = [stack.enter_context(path.open("w", newline="")) for path in paths]
        for done, (video, second, clip) in enumerate(_clips(data, key_frames, config), 1):
            start_s = time.perf_counter()
            by_step = detect(clip[None])
            times_s.append(time.perf_counter() - start_s)
            for file, found in zip(files, by_step, strict=True):
                boxes, labels, scores = (
                    values[0, : int(found.counts[0])] for values in (found.boxes, found.labels, found.scores)
                )
                write_rows(file, detection_rows(video, second, np.clip(boxes, 0, 1), labels, scores))
            progress(done, len(key_frames))
    return times_s


def _clips(
    data: KeyFrameClips, key_frames: list[tuple[str, int]], config: StepConfig
) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    """Yields video, second and clip [F, H, W, 3]; reads ahead while the model works. An unreadable clip ends it."""
    waiting: deque[tuple[str, int, Future[NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(_LOADING) as pool:
        try:
            for video, second in key_frames:
                waiting.append((video, second, pool.submit(data.read, video, second, config)))
                if len(waiting) > _LOADING:
                    oldest = waiting.popleft()
                    yield oldest[0], oldest[1], oldest[2].result()
            while waiting:
                oldest = waiting.popleft()
                yield oldest[0], oldest[1], oldest[2].result()
        finally:
            for _, _, future in waiting:
                future.cancel()
