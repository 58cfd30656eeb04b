"""What a clip is: which moments it shows and what arrays may hold it (torch-free).

Source: SPEC.md, "Clip and preprocessing".
"""

import math
from fractions import Fraction

from step.arguments import as_number
from step.config import CLIP_FPS, StepConfig


def check_frames(shape: tuple[int, ...], dtype: str, config: StepConfig) -> None:
    """Refuses arrays that are not clips of this model.

    Raises:
        ValueError: saying what was expected and what came.
    """
    size = config.image_size_px
    expected = (config.clip_frames, size, size, 3)
    problem = None
    if dtype != "uint8":
        problem = f"dtype {dtype}; keep the decoder's 0..255 values, normalisation is inside the model"
    elif len(shape) == 4 and tuple(shape) == expected:
        problem = f"shape {list(shape)}; add the clip dimension: frames[None]"
    elif len(shape) == 5 and shape[2] == 3 and shape[4] != 3:
        problem = f"shape {list(shape)}; the colour channel comes last, not third"
    elif len(shape) != 5 or tuple(shape[1:]) != expected or shape[0] < 1:
        problem = f"shape {list(shape)}"
    if problem:
        raise ValueError(f"frames: expected uint8 [B, {', '.join(map(str, expected))}] RGB, got {problem}")


def check_thresholds(*, score_threshold: float, nms_iou: float, max_detections: int) -> None:
    """Refuses thresholds that would silently give nonsense (NaN among them), and what is no number.

    Raises:
        ValueError: naming the threshold, its value and its range.
    """
    if not 0 <= as_number(score_threshold) < 1:
        raise ValueError(f"score_threshold is {score_threshold}; it must be in [0, 1)")
    if not 0 < as_number(nms_iou) <= 1:
        raise ValueError(f"nms_iou is {nms_iou}; it must be in (0, 1]")
    if not isinstance(max_detections, int) or not as_number(max_detections) >= 1:
        raise ValueError(f"max_detections is {max_detections}; it must be a whole number of at least 1")


def clip_offsets_s(clip_frames: int) -> list[Fraction]:
    """Returns the seconds from the key frame to each frame of a clip.

    The key frame is the LAST of the first half, so offsets run from -(F/2 - 1)/12 to (F/2)/12.

    Args:
        clip_frames: F, even.
    """
    half = clip_frames // 2
    return [Fraction(index - (half - 1), CLIP_FPS) for index in range(clip_frames)]


def clip_frame_indices(key: int, *, source_fps: Fraction, num_frames: int, clip_frames: int) -> list[int]:
    """Returns the source frames of a clip, by index, at a constant frame rate.

    Frame j is int(key + j s) with s = source_fps / 12, clamped to the video.

    Args:
        key: index of the key frame.
        source_fps: frames per second of the video.
        num_frames: frames of the video.
        clip_frames: F, even.
    """
    indices = (math.trunc(key + offset * source_fps) for offset in clip_offsets_s(clip_frames))
    return [min(max(index, 0), num_frames - 1) for index in indices]


def tube_offsets_s(num_frames: int, config: StepConfig) -> list[float]:
    """Returns the seconds from the key frame to the middle of each feature frame of a tube.

    A feature frame covers 4 frames of the clip; a tube covers the middle `num_frames` feature frames.
    """
    first = (config.feature_frames - num_frames) // 2
    offsets = clip_offsets_s(config.clip_frames)
    span = config.clip_frames // config.feature_frames
    groups = (offsets[(first + i) * span : (first + i + 1) * span] for i in range(num_frames))
    return [float(sum(group) / span) for group in groups]
