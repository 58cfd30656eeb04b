"""A model over the key frames of an AVA-format data set: results in AVA's csv format."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step.data.frame_store import CLIP_FRAMES, frame_file, read_clip, read_frame, second_folder
from step.data.video_clip import read_video_clip
from step.data.videos import videos_by_name
from step.errors import StepError
from step.evaluation.ava_rows import detection_rows, write_rows
from step.evaluation.box_table import read_boxes
from step.files.atomic import atomic_path
from step_runtime.detector import Detector

_LOADING = 2  # clips that are read ahead


@dataclass(frozen=True)
class DatasetFolder:
    """Where the parts of a data set lie.

    Attributes:
        truth: <split>.csv.
        frames: the folder `frames`, None where there is none; then `videos` is used.
        videos: the folder `videos`.
        label_map: label_map.pbtxt, None where there is none.
        exclude: <split>_excluded.csv, None where there is none.
    """

    truth: Path
    frames: Path | None
    videos: Path
    label_map: Path | None
    exclude: Path | None

    @classmethod
    def open(cls, folder: Path, split: str) -> "DatasetFolder":
        """Finds the parts.

        Raises:
            StepError: no such folder, no csv of the split, or neither frames nor videos.
        """
        truth, frames, videos = folder / f"{split}.csv", folder / "frames", folder / "videos"
        if not folder.is_dir():
            raise StepError(f"--data {folder}: no such folder")
        if not truth.is_file():
            raise StepError(f"--data {folder}: has no {truth.name}; write it with step-data prepare, or give --split")
        if not frames.is_dir() and not videos.is_dir():
            raise StepError(f"--data {folder}: has neither frames nor videos, which are folders of those names")
        label_map, exclude = folder / "label_map.pbtxt", folder / f"{split}_excluded.csv"
        return cls(
            truth=truth,
            frames=frames if frames.is_dir() else None,
            videos=videos,
            label_map=label_map if label_map.is_file() else None,
            exclude=exclude if exclude.is_file() else None,
        )

    def key_frames(self) -> list[tuple[str, int]]:
        """Video and second of every key frame of the csv, in order."""
        table = read_boxes(self.truth, last="person")
        videos = [table.videos[number] for number in table.video.tolist()]
        pairs = {*zip(videos, table.second.tolist(), strict=True), *table.empty}
        fractional = sorted(pair for pair in pairs if pair[1] != int(pair[1]))
        if fractional:
            raise StepError(
                f"{self.truth}: second {fractional[0][1]} of {fractional[0][0]}; key frames are whole seconds"
            )
        return sorted((video, int(second)) for video, second in pairs)

    def read(self, video: str, second: int, config: StepConfig) -> NDArray[np.uint8]:
        """A key frame's clip as the model takes it, uint8 [F, H, W, 3]."""
        if self.frames is not None:
            clip = read_clip(self.frames, video, second)
        else:
            clip = read_video_clip(self._video_file(video), second)
        margin = (CLIP_FRAMES - config.clip_frames) // 2  # the key frame is the last of the first half in both
        size = (config.image_size_px, config.image_size_px)
        wanted = clip[margin : margin + config.clip_frames]
        return np.stack([np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)) for picture in wanted])

    def key_frame(self, video: str, second: int) -> NDArray[np.uint8]:
        """The picture that is annotated, uint8 [H, W, 3]: the first of the second."""
        if self.frames is not None:
            return read_frame(frame_file(second_folder(self.frames, video, second), 0))
        return np.asarray(read_video_clip(self._video_file(video), second)[CLIP_FRAMES // 2], np.uint8)

    def _video_file(self, video: str) -> Path:
        found = videos_by_name([self.videos]).get(video)
        if found is None:
            raise StepError(f"{self.videos}: has no video {video!r}, which is in {self.truth.name}")
        return found


class KeyFrameClips(Protocol):
    """Key frames and their clips: a `DatasetFolder`, or what stands for one."""

    def key_frames(self) -> list[tuple[str, int]]:
        """See `DatasetFolder.key_frames`."""

    def read(self, video: str, second: int, config: StepConfig) -> NDArray[np.uint8]:
        """See `DatasetFolder.read`."""


def write_results(
    detector: Detector, data: KeyFrameClips, output: Path, *, progress: Callable[[int, int], None] = lambda _i, _n: None
) -> list[float]:
    """Runs a model on every key frame and writes a csv of its detections.

    Args:
        detector: the model.
        data: the data set.
        output: the file to write.
        progress: is told how many key frames are done, of how many.

    Returns:
        Seconds that the model took for each clip.

    Raises:
        StepError: a clip that cannot be read, a model of longer clips than the data set gives, or nowhere to write.
    """
    config = detector.config
    if config.clip_frames > CLIP_FRAMES:
        raise StepError(
            f"the model takes clips of {config.clip_frames} frames; AVA's layout gives {CLIP_FRAMES} a key frame"
        )
    key_frames = data.key_frames()
    times_s: list[float] = []
    with atomic_path(output) as path, path.open("w", newline="") as file:
        for done, (video, second, clip) in enumerate(_clips(data, key_frames, config), 1):
            start_s = time.perf_counter()
            found = detector.detect(clip[None])
            times_s.append(time.perf_counter() - start_s)
            boxes, labels, scores = (
                values[0, : int(found.counts[0])] for values in (found.boxes, found.labels, found.scores)
            )
            write_rows(file, detection_rows(video, second, np.clip(boxes, 0, 1), labels, scores))
            progress(done, len(key_frames))
    return times_s


def _clips(
    data: KeyFrameClips, key_frames: list[tuple[str, int]], config: StepConfig
) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    """Reads ahead while the model works; a clip that cannot be read ends it."""
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
