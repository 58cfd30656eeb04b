"""Reads key frames' clips as they are stored: extracted frames or, where there are none, videos (torch-free)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from step.data.frame_store import CLIP_FRAMES, frame_file, read_clip, read_frame, second_folder
from step.data.video_clip import read_video_clip
from step.data.videos import videos_by_name
from step.errors import StepError


class StoredClips:
    """Reads clips of H x W images, as large as they are stored; threads and processes may share one.

    Args:
        frames: root of the extracted frames; None to decode the videos.
        videos: folder of the videos; None where there are frames.

    Raises:
        StepError: not one of the two is given, or the folder of videos holds none.
    """

    def __init__(self, *, frames: Path | None, videos: Path | None) -> None:
        if (frames is None) == (videos is None):
            raise StepError("give either the folder of extracted frames or that of the videos")
        self._frames, self._folder = frames, videos
        self._videos = {} if videos is None else videos_by_name([videos])

    def read(self, video: str, second: int) -> NDArray[np.uint8]:
        """Reads a key frame's clip, uint8 [36, H, W, 3] RGB.

        Raises:
            StepError: no such video, or no frames of one of its seconds.
        """
        if self._frames is not None:
            return read_clip(self._frames, video, second)
        return read_video_clip(self._file(video), second)

    def read_key_frame(self, video: str, second: int) -> NDArray[np.uint8]:
        """Reads the frame that is annotated, uint8 [H, W, 3] RGB: the first of the second.

        Raises:
            StepError: see `read`.
        """
        if self._frames is not None:
            return read_frame(frame_file(second_folder(self._frames, video, second), 0))
        return np.asarray(read_video_clip(self._file(video), second)[CLIP_FRAMES // 2], np.uint8)

    def _file(self, video: str) -> Path:
        if video not in self._videos:
            raise StepError(f"video {video!r} of the csv is not in the folder of videos, {self._folder}")
        return self._videos[video]
