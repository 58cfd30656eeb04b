"""Counts which actions are detected at people who do which: a confusion of several labels a person (torch-free).

Shape legend: L classes, G ground-truth boxes, D detections, P people (a person in a key frame, with all labels).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from step.evaluation.frame_map import Boxes, ClassResult, best_truth


@dataclass(frozen=True)
class Confusion:
    """Holds shares of the people who do one thing.

    Attributes:
        labels: the L class ids of rows and columns.
        count: int64 [L] people with each class.
        truth: float64 [L, L] share of the people with the row's class who also have the column's.
        found: float64 [L, L] share of the people with the row's class at whom the column's was detected.
        threshold: score from which on a class counts as detected, by class id: where its F1 is largest.
    """

    labels: list[int]
    count: NDArray[np.int64]
    truth: NDArray[np.float64]
    found: NDArray[np.float64]
    threshold: dict[int, float]


def confusion(truth: Boxes, detections: Boxes, results: dict[int, ClassResult], *, iou: float) -> Confusion:
    """Compares the labels of people with what was detected at them.

    A detection belongs to the person of its key frame whom it overlaps most, if by at least `iou`. Boxes of the ground
    truth with the same corners are one person.

    Args:
        truth: [G] ground truth.
        detections: [D] with scores.
        results: of scoring these, see `frame_ap`.
        iou: least overlap.
    """
    assert detections.score is not None
    labels = list(results)
    column = {label: place for place, label in enumerate(labels)}
    people, person = np.unique(
        np.column_stack((truth.frame.astype(np.float64), truth.boxes_xyxy)), axis=0, return_inverse=True
    )
    does = _marks(len(people), len(labels), person.reshape(-1), _columns(truth.label, column))
    threshold = {label: best_threshold(result) for label, result in results.items()}
    wanted = np.array([threshold.get(label, np.inf) for label in range(int(detections.label.max(initial=0)) + 1)])
    shown = np.flatnonzero(detections.score >= wanted[detections.label]) if len(detections.label) else np.zeros(0, int)
    chosen = detections.take(shown)
    one_class = np.zeros(len(people), np.int32), np.zeros(len(chosen.label), np.int32)
    bodies = Boxes(people[:, 0].astype(np.int64), one_class[0], people[:, 1:])
    at, overlap = best_truth(bodies, Boxes(chosen.frame, one_class[1], chosen.boxes_xyxy))
    placed = np.flatnonzero(overlap >= iou)
    detected = _marks(len(people), len(labels), at[placed], _columns(chosen.label[placed], column))
    count = does.sum(0)
    share = np.maximum(count, 1)[:, None]
    return Confusion(labels, count, does.T @ does / share, does.T @ detected / share, threshold)


def best_threshold(result: ClassResult) -> float:
    """Returns the score at which a class's F1 is largest; infinity where nothing was right."""
    total = result.precision + result.recall
    if not total.any():
        return float("inf")
    f1 = np.divide(2 * result.precision * result.recall, total, out=np.zeros_like(total), where=total > 0)
    return float(result.score[np.argmax(f1)])


def _columns(label: NDArray[np.int32], column: dict[int, int]) -> NDArray[np.int64]:
    places = np.full(int(label.max(initial=0)) + 1, -1, np.int64)
    for known, place in column.items():
        if known < len(places):
            places[known] = place
    return places[label]


def _marks(rows: int, columns: int, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
    marks = np.zeros((rows, columns), np.int64)
    marks[row, column] = 1
    return marks
