"""A camera of this machine, by index (OpenCV, since PyAV's wheels have no camera input)."""

import time
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np

from step.errors import StepError
from step_runtime.clip_buffer import SourceFrame
from step_runtime.sources.frame_folder import image_frame

_FALLBACK_FPS = 30
_CLOCK_TICKS = 1000  # frames are stamped with this machine's clock, in milliseconds


class CameraSource:
    """A live camera; see `Source` for the attributes.

    Args:
        index: the system's number of the camera.

    Raises:
        StepError: no such camera.
    """

    duration_s: Fraction | None = None
    is_live = True

    def __init__(self, index: int) -> None:
        self.name = f"camera{index}"
        self.problem: str | None = None
        self._index = index
        capture = self._open()
        fps = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        self.interval_s = 1 / Fraction(round(fps) if fps >= 1 else _FALLBACK_FPS)
        self.slack_s = self.interval_s / 4

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`; ends when the camera is unplugged."""
        capture = self._open()
        start_s = time.monotonic()
        index = 0
        previous_s = Fraction(-1)
        try:
            while True:
                ok, pixels = capture.read()
                elapsed_s = Fraction(round((time.monotonic() - start_s) * _CLOCK_TICKS), _CLOCK_TICKS)
                if not ok:
                    self.problem = f"{self.name}: no more frames after {float(elapsed_s):.1f} s"
                    return
                if not index:
                    start_s, elapsed_s = time.monotonic(), Fraction(0)
                if elapsed_s <= previous_s:
                    continue
                previous_s = elapsed_s
                rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
                yield image_frame(rgb, elapsed_s, index)
                index += 1
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a missing camera is told in one line, below
        capture = cv2.VideoCapture(self._index)
        cv2.utils.logging.setLogLevel(level)
        if not capture.isOpened():
            raise StepError(f"camera {self._index}: cannot open; is it connected and free?")
        return capture
