"""A data set's clips, decoded once for all configurations that are scored on it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step.data.dataset_folder import DatasetFolder
from step.files.atomic import atomic_path

_THREADS = 2
_MOST_BYTES = 2 * 10**9  # a larger data set is decoded for each configuration anew


class ClipCache:
    """The key frames of a data set for `write_results`, from a file in a folder that several processes may share.

    Args:
        data: the data set.
        config: of the model: clips are decoded and resized for it.
        folder: for the file, which the first process to need it writes.

    Raises:
        StepError: a clip that cannot be read.
    """

    def __init__(self, data: DatasetFolder, config: StepConfig, folder: Path) -> None:
        self._data = data
        self._key_frames = data.key_frames()
        self._clips: NDArray[np.uint8] | None = None
        size, frames = config.image_size_px, config.clip_frames
        if len(self._key_frames) * frames * size * size * 3 > _MOST_BYTES:
            return
        file = folder / f"{frames}x{size}.npy"
        if not file.exists():
            with ThreadPoolExecutor(_THREADS) as pool:
                clips = np.stack(list(pool.map(lambda key: data.read(key[0], key[1], config), self._key_frames)))
            with atomic_path(file) as path, path.open("wb") as stream:
                np.save(stream, clips)
        self._clips = np.load(file, mmap_mode="r")

    def key_frames(self) -> list[tuple[str, int]]:
        """See `DatasetFolder.key_frames`."""
        return self._key_frames

    def read(self, video: str, second: int, config: StepConfig) -> NDArray[np.uint8]:
        """See `DatasetFolder.read`."""
        if self._clips is None:
            return self._data.read(video, second, config)
        return np.asarray(self._clips[self._key_frames.index((video, second))])
