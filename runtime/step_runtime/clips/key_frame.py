"""What the runtime reports about one key frame."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from step.detections import Detections


@dataclass(frozen=True)
class Clip:
    """The frames around one key frame, ready for the model.

    Attributes:
        frames: uint8 [F, H, W, 3] RGB.
        time_s: exact time of the key frame, from the first frame of the source.
        scheduled_s: the moment that asked for this key frame; at most one frame interval after `time_s`.
        frame: index of the key frame in the source.
        width_px, height_px: size of the source's pictures, rotation applied.
        ready_at_s: monotonic clock when the clip was complete.
    """

    frames: NDArray[np.uint8]
    time_s: Fraction
    scheduled_s: Fraction
    frame: int
    width_px: int
    height_px: int
    ready_at_s: float


@dataclass(frozen=True)
class KeyMoment:
    """A key frame whose clip comes as features, not as frames.

    Attributes:
        number: of the source's key frames, from 0.
        group: the first of the feature frames of its clip, counted from the one with which the first clip begins.
        time_s, scheduled_s, frame, width_px, height_px: see `Clip`.
        ready_at_s: monotonic clock when the last frame of its clip was there.
    """

    number: int
    group: int
    time_s: Fraction
    scheduled_s: Fraction
    frame: int
    width_px: int
    height_px: int
    ready_at_s: float


@dataclass(frozen=True)
class KeyFrame:
    """Detections at one key frame of a source.

    Attributes:
        video: name of the source.
        time_s, scheduled_s, frame, width_px, height_px: see `Clip`.
        detections: of one clip (B = 1).
        lag_s: from the clip being complete to its detections being there.
    """

    video: str
    time_s: Fraction
    scheduled_s: Fraction
    frame: int
    width_px: int
    height_px: int
    detections: Detections[NDArray[np.generic]]
    lag_s: float
