"""Finds what went wrong, worst first: detections that are wrong and why, people who were missed (torch-free)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from step.evaluation.frame_map import Boxes, best_truth
from step.evaluation.scoring import Score

Kind = Literal["nobody there", "badly placed", "another action", "found before", "missed", "taken for another"]
_TOUCHES_IOU = 0.1  # less is no attempt at that person


@dataclass(frozen=True)
class Mistake:
    """Describes a wrong detection or a missed person.

    Attributes:
        video, second: the key frame.
        label: class id.
        box_xyxy: float64 [4] in [0, 1].
        score: of the wrong detection; of the best detection that touches a missed person, 0 where there is none.
        kind: why it is wrong.
        iou: with what it was compared with.
        is_missed: whether it is ground truth that was not found.
    """

    video: str
    second: float
    label: int
    box_xyxy: NDArray[np.float64]
    score: float
    kind: Kind
    iou: float
    is_missed: bool


def worst_false_positives(score: Score, *, iou: float, most: int, most_of_class: int) -> list[Mistake]:
    """Finds the best-scored of the detections that are wrong.

    Args:
        score: what came of scoring.
        iou: at which of its overlaps.
        most: how many.
        most_of_class: how many of one class, so that the worst class does not hide the others.
    """
    truth, found = score.truth.boxes, score.detections.boxes
    assert found.score is not None
    results = score.results[iou].values()
    wrong = np.concatenate([result.rows[~result.correct] for result in results] or [np.zeros(0, np.int64)])
    rows = _pick(wrong[np.argsort(-found.score[wrong], kind="stable")], found.label, most, most_of_class)
    _, class_iou = best_truth(truth, found.take(rows))
    _, person_iou = best_truth(_without_class(truth), _without_class(found.take(rows)))
    mistakes = []
    for place, row in enumerate(rows.tolist()):
        if class_iou[place] >= iou:
            kind: Kind = "found before"
        elif person_iou[place] >= iou:
            kind = "another action"
        elif person_iou[place] >= _TOUCHES_IOU:
            kind = "badly placed"
        else:
            kind = "nobody there"
        overlap = max(float(class_iou[place]), float(person_iou[place]), 0.0)
        video, second = score.detections.key_frame(row)
        box, label = found.boxes_xyxy[row], int(found.label[row])
        mistakes.append(Mistake(video, second, label, box, float(found.score[row]), kind, overlap, is_missed=False))
    return mistakes


def worst_false_negatives(score: Score, *, iou: float, most: int, most_of_class: int) -> list[Mistake]:
    """Finds the largest of the people whom no detection of their class found; see `worst_false_positives`."""
    truth, found = score.truth.boxes, score.detections.boxes
    assert found.score is not None
    claimed, _ = best_truth(truth, found)
    is_found = np.zeros(len(truth.label), bool)
    for result in score.results[iou].values():
        is_found[claimed[result.rows[result.correct]]] = True
    missed = np.flatnonzero(~is_found & np.isin(truth.label, list(score.results[iou])))
    sides = truth.boxes_xyxy[missed, 2:] - truth.boxes_xyxy[missed, :2]
    rows = _pick(missed[np.argsort(-sides.prod(1), kind="stable")], truth.label, most, most_of_class)
    nearest, overlap = best_truth(found, truth.take(rows))
    mistakes = []
    for place, row in enumerate(rows.tolist()):
        touched = overlap[place] >= _TOUCHES_IOU
        score_there = float(found.score[nearest[place]]) if touched else 0.0
        # A detection claims one person only: of two who stand close, the other.
        kind: Kind = "taken for another" if overlap[place] >= iou else "badly placed" if touched else "missed"
        video, second = score.truth.key_frame(row)
        box, label = truth.boxes_xyxy[row], int(truth.label[row])
        there = float(overlap[place]) if touched else 0.0
        mistakes.append(Mistake(video, second, label, box, score_there, kind, there, is_missed=True))
    return mistakes


def _pick(rows: NDArray[np.int64], label: NDArray[np.int32], most: int, most_of_class: int) -> NDArray[np.int64]:
    """Picks the first rows, not too many of one class."""
    picked: list[int] = []
    count: dict[int, int] = {}
    for row in rows.tolist():
        mine = int(label[row])
        if count.get(mine, 0) < most_of_class and len(picked) < most:
            count[mine] = count.get(mine, 0) + 1
            picked.append(row)
    return np.array(picked, np.int64)


def _without_class(boxes: Boxes) -> Boxes:
    return Boxes(boxes.frame, np.zeros_like(boxes.label), boxes.boxes_xyxy, boxes.score)
