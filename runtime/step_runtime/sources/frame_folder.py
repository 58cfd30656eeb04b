"""A folder of frames, one image a frame: the release's demo layout."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from step.errors import StepError
from step.video.files import read_folder
from step_runtime.sources.base import SourceFrame

FASTEST_FPS = 1000
"""The most frames a second that commands and requests may state; what is above is a slip of the keyboard."""


class FrameFolderSource:
    """Images at a constant rate; see `Source` for the attributes.

    Args:
        folder: holds the images.
        fps: their frames per second.
    """

    slack_s = Fraction(0)
    is_live = False

    def __init__(self, folder: Path, *, fps: Fraction) -> None:
        self.name = folder.absolute().name
        self.problem: str | None = None
        self.notes: list[str] = []
        self.interval_s = 1 / fps
        self._files = read_folder(folder).frames
        self.duration_s: Fraction | None = len(self._files) / fps

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`."""
        self.problem = None
        for index, path in enumerate(self._files):
            try:
                pixels = _read_rgb(path)
            except StepError as error:
                if not index:
                    raise
                self.problem = f"{error} (at {float(index * self.interval_s):.2f} s)"
                return
            yield image_frame(pixels, index * self.interval_s, index)


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise StepError(f"{path}: not an image, or damaged")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def image_frame(pixels: NDArray[np.uint8], time_s: Fraction, index: int) -> SourceFrame:
    """A frame whose pixels are there already: uint8 [H, W, 3] RGB."""
    height, width = pixels.shape[:2]
    return SourceFrame(time_s=time_s, index=index, width_px=width, height_px=height, rgb=lambda: pixels)
