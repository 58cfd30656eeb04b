"""Reads a data set's folder as `step-data` makes it: annotations, and frames or videos (torch-free).

Shape legend: F frames of the model's clips, H x W stored images.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step.data.frame_store import CLIP_FRAMES
from step.data.stored_clips import StoredClips
from step.errors import ArgumentError, StepError
from step.evaluation.ava_csv import read_boxes


@dataclass(frozen=True)
class DatasetFolder:
    """Knows where the parts of a data set lie, and reads its key frames.

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
    def open(cls, folder: Path, split: str, *, called: str = "`data`") -> "DatasetFolder":
        """Finds the parts.

        Args:
            folder: with them.
            split: which csv.
            called: what messages call the folder.

        Raises:
            StepError: no such folder, no csv of the split, or neither frames nor videos.
        """
        truth, frames, videos = folder / f"{split}.csv", folder / "frames", folder / "videos"
        if not folder.is_dir():
            raise ArgumentError(f"{called} {folder}: no such folder")
        if not truth.is_file():
            raise ArgumentError(
                f"{called} {folder}: has no {truth.name}; write it with step-data prepare, or name another split"
            )
        if not frames.is_dir() and not videos.is_dir():
            raise ArgumentError(f"{called} {folder}: has neither frames nor videos, which are folders of those names")
        label_map, exclude = folder / "label_map.pbtxt", folder / f"{split}_excluded.csv"
        return cls(
            truth=truth,
            frames=frames if frames.is_dir() else None,
            videos=videos,
            label_map=label_map if label_map.is_file() else None,
            exclude=exclude if exclude.is_file() else None,
        )

    def key_frames(self) -> list[tuple[str, int]]:
        """Lists video and second of every key frame of the csv, in order.

        Raises:
            StepError: the csv cannot be read, or has a key frame between two seconds.
        """
        table = read_boxes(self.truth, last="person")
        videos = [table.videos[number] for number in table.video.tolist()]
        pairs = {*zip(videos, table.second.tolist(), strict=True), *table.empty}
        fractional = sorted(pair for pair in pairs if pair[1] != int(pair[1]))
        if fractional:
            raise StepError(
                f"{self.truth}: second {fractional[0][1]} of {fractional[0][0]}; key frames are whole seconds"
            )
        return sorted((video, int(second)) for video, second in pairs)

    @functools.cached_property
    def stored(self) -> StoredClips:
        """Gives the clips as they are stored.

        Raises:
            StepError: there are no frames, and no videos.
        """
        return StoredClips(frames=self.frames, videos=self.videos if self.frames is None else None)

    def read(self, video: str, second: int, config: StepConfig) -> NDArray[np.uint8]:
        """Reads a key frame's clip as the model takes it, uint8 [F, H, W, 3] RGB.

        Raises:
            StepError: see `StoredClips.read`.
        """
        clip = self.stored.read(video, second)
        margin = (CLIP_FRAMES - config.clip_frames) // 2  # the key frame is the last of the first half in both
        size = (config.image_size_px, config.image_size_px)
        wanted = clip[margin : margin + config.clip_frames]
        return np.stack([np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)) for image in wanted])

    def key_frame(self, video: str, second: int) -> NDArray[np.uint8]:
        """Reads the frame that is annotated, uint8 [H, W, 3] RGB; see `StoredClips.read_key_frame`."""
        return self.stored.read_key_frame(video, second)


class KeyFrameClips(Protocol):
    """Gives key frames and their clips: a `DatasetFolder`, or what stands for one."""

    def key_frames(self) -> list[tuple[str, int]]:
        """See `DatasetFolder.key_frames`."""

    def read(self, video: str, second: int, config: StepConfig) -> NDArray[np.uint8]:
        """See `DatasetFolder.read`."""
