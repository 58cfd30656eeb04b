"""What counts as the same result: tolerances, and matching of detections (torch-free).

Tolerances. fp32: what float32 rounding leaves of the same mathematics (SPEC.md, "Golden numbers"). fp16: ten half
roundings (10 x 2**-11) of the largest value for features, the same 0.005 for probabilities, and one input pixel
(1/16 of a feature cell) for boxes; on the golden weights the errors are 2 to 7 times smaller, and PyTorch's own half
model is further from float32 than the exported graph (README, "Measured").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from step.bundles.graph_spec import Arrays, Precision

_IOU_SLACK = 0.05  # boxes near the threshold may be on either side of it


@dataclass(frozen=True)
class Tolerance:
    """Largest errors that an export may have."""

    features: float  # of the largest reference value
    scores: float
    boxes_px: float
    rows_matched: float  # share of the detections that have to be the same


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(features=1e-4, scores=1e-4, boxes_px=0.05, rows_matched=1.0),
    "fp16": Tolerance(features=5e-3, scores=5e-3, boxes_px=1.0, rows_matched=0.95),
}


def held_to(precision: Precision, *, tf32: bool) -> Precision:
    """Whose tolerance results are held to.

    Args:
        precision: of the networks.
        tf32: whether products of float32 may be computed with TF32's ten bits, which are as many as half's.
    """
    return "fp16" if tf32 else precision


def detections_apart(
    found: Arrays, expected: Arrays, *, score_tolerance: float, score_threshold: float, nms_iou: float
) -> float:
    """Share of one clip's detections that only one side has, or that should not both be there.

    A row is on both sides if its tube has its class there with the same score, whatever the rank. Two differences are
    no error, because rounding decides them: a row whose score is within the tolerance of the threshold, or of the last
    row of a full list, may have fallen off, and of two overlapping rows with equal scores either may have suppressed
    the other.

    Args:
        found, expected: boxes [M, 4], scores, labels, tube_indices [M]; padding has tube -1.
        score_tolerance: what counts as equal scores.
        score_threshold: of the detection.
        nms_iou: of the suppression.
    """
    room = len(found["scores"])
    rows_found, rows_expected = (
        {name: values[side["tube_indices"] >= 0] for name, values in side.items()} for side in (found, expected)
    )
    last_found, last_expected = (
        rows["scores"].min() if len(rows["scores"]) == room else score_threshold for rows in (rows_found, rows_expected)
    )
    most = max(len(rows_found["scores"]), len(rows_expected["scores"]))
    if not most:
        return 0.0
    wrong = (
        _count_absent(rows_found, rows_expected, last_expected, score_tolerance, nms_iou),
        _count_absent(rows_expected, rows_found, last_found, score_tolerance, nms_iou),
        _count_unsuppressed(rows_found, nms_iou),
    )
    return max(wrong) / most


def _count_absent(rows: Arrays, among: Arrays, last: float, score_tolerance: float, nms_iou: float) -> int:
    """How many rows are not among the others, nor near the others' end, nor tied with one that overlaps them."""
    close = np.abs(rows["scores"][:, None] - among["scores"][None]) <= score_tolerance
    same_class = rows["labels"][:, None] == among["labels"][None]
    same_tube = rows["tube_indices"][:, None] == among["tube_indices"][None]
    overlaps = _plain_iou(rows["boxes"], among["boxes"]) >= nms_iou - _IOU_SLACK
    present = (close & same_class & (same_tube | overlaps)).any(axis=1)
    return int((~present & (rows["scores"] > last + score_tolerance)).sum())


def _count_unsuppressed(rows: Arrays, nms_iou: float) -> int:
    """How many rows overlap a better one of their class further than NMS allows (plain IoU is never above "+1" IoU)."""
    same_class = rows["labels"][:, None] == rows["labels"][None]
    overlaps = _plain_iou(rows["boxes"], rows["boxes"]) >= nms_iou + _IOU_SLACK
    return int(np.tril(same_class & overlaps, -1).any(axis=1).sum())


def _plain_iou(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inter = (high - low).clip(0).prod(axis=2)
    area_one, area_other = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other))
    return np.asarray(inter / np.maximum(area_one[:, None] + area_other[None] - inter, 1e-12))
