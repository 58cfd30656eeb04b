"""A camera of this machine, by index (OpenCV, since PyAV's wheels have no camera input)."""

import time
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np

from step.errors import StepError
from step_runtime.sources.base import SourceFrame
from step_runtime.sources.frame_folder import image_frame

_FALLBACK_FPS = 30
_CLOCK_TICKS = 1000  # frames are stamped with this machine's clock, in milliseconds


class CameraConnection:
    """An open camera; see `Connection`.

    Args:
        index: the system's number of the camera.

    Raises:
        StepError: no such camera.
    """

    duration_s: Fraction | None = None
    is_live = True

    def __init__(self, index: int) -> None:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_SILENT
        )  # a missing camera is reported in one line, below
        self._capture = cv2.VideoCapture(index)
        cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            raise StepError(f"camera {index}: cannot open; is it connected and free?")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.interval_s = 1 / Fraction(round(fps) if fps >= 1 else _FALLBACK_FPS)
        self.slack_s = self.interval_s / 4
        self.description = f"camera {index}, {float(1 / self.interval_s):g} fps"

    def frames(self) -> Iterator[SourceFrame]:
        """See `Connection.frames`; ends when the camera is unplugged."""
        start_s = 0.0
        index = 0
        previous_s = Fraction(-1)
        while True:
            ok, pixels = self._capture.read()
            if not ok:
                return
            if not index:
                start_s = time.monotonic()
            elapsed_s = Fraction(round((time.monotonic() - start_s) * _CLOCK_TICKS), _CLOCK_TICKS)
            if elapsed_s <= previous_s:
                continue
            previous_s = elapsed_s
            rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
            yield image_frame(rgb, elapsed_s, index)
            index += 1

    def close(self) -> None:
        """See `Connection.close`."""
        self._capture.release()
