"""Merging detections of different classes that are the same person.

Source: SPEC.md, "Detections of a step" (the release's demo).
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step_runtime.backends.base import Array
from step_runtime.clips.key_frame import KeyFrame

MERGE_IOU = 0.8
_D = TypeVar("_D", bound=np.generic)


@dataclass(frozen=True)
class Person:
    """One box and everything it does.

    Attributes:
        box: x1, y1, x2, y2 in [0, 1] at the key frame: the mean of the merged boxes.
        actions: (class id, score), best first.
        tube: [T', 4] in [0, 1], the mean of the merged tubes.
    """

    box: NDArray[np.float32]
    actions: tuple[tuple[int, float], ...]
    tube: NDArray[np.float32]

    @property
    def score(self) -> float:
        """The score of the best action."""
        return self.actions[0][1]


def merge_classes(key_frame: KeyFrame, config: StepConfig, *, score_threshold: float) -> list[Person]:
    """People at a key frame, best score first.

    In order of score, a box whose IoU (plain, no "+1") with an earlier group's first box is above 0.8 joins that group.

    Args:
        key_frame: one clip's detections.
        config: of the model that made them.
        score_threshold: detections have to be above it.
    """
    detections = key_frame.detections
    boxes = _one(detections.boxes, np.float32)
    scores = _one(detections.scores, np.float32)
    labels, tubes = _one(detections.labels, np.int64), _one(detections.tube_indices, np.int64)
    tubes_01 = _one(detections.tubes_px, np.float32) / config.image_size_px
    count = int(detections.counts[0])
    waiting = [row for row in range(count) if scores[row] > score_threshold]
    people: list[Person] = []
    while waiting:
        first = waiting[0]
        overlaps = plain_iou(boxes[first], boxes[waiting]) > MERGE_IOU
        group = [row for row, joins in zip(waiting, overlaps, strict=True) if joins or row == first]
        waiting = [row for row in waiting if row not in group]
        people.append(
            Person(
                box=boxes[group].mean(axis=0),
                actions=tuple((int(labels[row]), float(scores[row])) for row in group),
                tube=tubes_01[tubes[group]].mean(axis=0),
            )
        )
    return people


def plain_iou(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of one box [4] with many [M, 4], corners as real numbers."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0), np.float32)


def _one(rows: Array, dtype: type[_D]) -> NDArray[_D]:
    return np.asarray(rows[0], dtype)
