"""Computes frame-mAP: average precision of boxes with classes in key frames (torch-free).

Shape legend: G ground-truth boxes, D detections.

A detection claims the ground truth of its frame and class that it overlaps most; of the detections that claim one with
at least the wanted IoU the best-scored is right, all others are wrong. A class's detections, best first, give precision
and recall; its average precision is the area under the precision envelope. The mean is over classes with ground truth.

Source: SPEC.md, "Evaluation"; Gu et al., "AVA", section 4; the ActivityNet 2018 challenge's `get_ava_performance.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PAIRS_AT_ONCE = 1 << 20  # bounds the memory of comparing boxes


@dataclass(frozen=True)
class Boxes:
    """Holds boxes of many frames.

    Attributes:
        frame: int64 [R] number of the key frame; the same numbers in ground truth and detections.
        label: int32 [R] class id.
        boxes_xyxy: float64 [R, 4].
        score: float64 [R]; None for ground truth.
    """

    frame: NDArray[np.int64]
    label: NDArray[np.int32]
    boxes_xyxy: NDArray[np.float64]
    score: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Boxes":
        """Takes some of the rows, by mask or index."""
        score = None if self.score is None else self.score[rows]
        return Boxes(self.frame[rows], self.label[rows], self.boxes_xyxy[rows], score)


@dataclass(frozen=True)
class ClassResult:
    """Holds what came of one class at one IoU.

    Attributes:
        label: class id.
        average_precision: area under the precision envelope, 0 to 1.
        num_truth: ground-truth boxes.
        precision, recall: float64 [detections of the class], after each detection, best first.
        score: float64, of those detections.
        correct: bool, whether each is right.
        rows: int64, which detections they are.
    """

    label: int
    average_precision: float
    num_truth: int
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    score: NDArray[np.float64]
    correct: NDArray[np.bool_]
    rows: NDArray[np.int64]


def frame_ap(truth: Boxes, detections: Boxes, *, iou: float, labels: list[int] | None = None) -> dict[int, ClassResult]:
    """Computes the average precision of every class that has ground truth.

    Args:
        truth: [G] ground truth.
        detections: [D] with scores.
        iou: least overlap, above 0 and at most 1.
        labels: which classes; None for all that have ground truth.

    Returns:
        A result per class id, in order of the ids.
    """
    assert detections.score is not None
    wanted = np.unique(truth.label) if labels is None else np.intersect1d(labels, truth.label)
    claimed, overlap = best_truth(truth, detections)
    correct = _first_claims(claimed, overlap >= iou, detections.score, len(truth.label))
    # Best first; of equal scores the later row. The challenge's code leaves their order to an unstable sort, which is
    # this where few rows make it a stable one.
    order = np.lexsort((detections.score, detections.label))[::-1]
    sorted_labels = detections.label[order]
    results = {}
    for label in wanted.tolist():
        # descending labels: the class's rows are those between the two places
        low, high = (len(order) - np.searchsorted(sorted_labels[::-1], label, side) for side in ("right", "left"))
        rows = order[low:high]
        num_truth = int((truth.label == label).sum())
        right = np.cumsum(correct[rows])
        precision, recall = right / np.arange(1, len(rows) + 1), right / num_truth
        results[label] = ClassResult(
            label=label,
            average_precision=area_under_envelope(precision, recall),
            num_truth=num_truth,
            precision=precision,
            recall=recall,
            score=detections.score[rows],
            correct=correct[rows],
            rows=rows,
        )
    return results


def mean_ap(results: dict[int, ClassResult]) -> float:
    """Averages the classes' average precisions; 0 without classes."""
    return float(np.mean([result.average_precision for result in results.values()])) if results else 0.0


def area_under_envelope(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """Returns the area under the largest precision at each recall or beyond (VOC 2010 and later)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float((steps * envelope).sum())


def best_truth(truth: Boxes, detections: Boxes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Finds for each detection the ground truth of its frame and class that it overlaps most, and that IoU.

    Returns:
        int64 [D], -1 where there is none; float64 [D], -1 there. Of equal overlaps the first row counts.
    """
    best_row, best_iou = np.full(len(detections.label), -1, np.int64), np.full(len(detections.label), -1.0)
    order = np.lexsort((truth.label, truth.frame))  # stable: rows of a group stay in order
    num_labels = int(truth.label.max(initial=0)) + 1
    keys = _group_key(truth.frame[order], truth.label[order], num_labels)
    wanted = _group_key(detections.frame, detections.label, num_labels)
    first, count = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
    count -= first
    for rows in _chunks(count):
        pair_of = np.repeat(rows, count[rows])  # detection of each pair
        starts = np.cumsum(count[rows]) - count[rows]
        within = np.arange(len(pair_of)) - np.repeat(starts, count[rows])
        candidate = order[first[pair_of] + within]
        ious = paired_box_iou(truth.boxes_xyxy[candidate], detections.boxes_xyxy[pair_of])
        # By detection, then overlap, then later rows first: the last of each detection is its best and earliest.
        ranked = np.lexsort((-within, ious, pair_of))
        last = ranked[np.cumsum(count[rows]) - 1]
        best_row[rows], best_iou[rows] = candidate[last], ious[last]
    return best_row, best_iou


def paired_box_iou(first_xyxy: NDArray[np.float64], second_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the IoU of pairs, [P, 4] and [P, 4] -> [P], without "+1". Boxes without area overlap nothing."""
    low = np.maximum(first_xyxy[:, :2], second_xyxy[:, :2])
    high = np.minimum(first_xyxy[:, 2:], second_xyxy[:, 2:])
    inter = np.maximum(high - low, 0).prod(1)
    union = _area(first_xyxy) + _area(second_xyxy) - inter
    iou: NDArray[np.float64] = np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
    return iou


def _area(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    area: NDArray[np.float64] = (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
    return area


def _first_claims(
    claimed: NDArray[np.int64], enough: NDArray[np.bool_], score: NDArray[np.float64], num_truth: int
) -> NDArray[np.bool_]:
    """Marks which are right: of the detections that claim a ground truth with enough overlap the best-scored."""
    claims = np.flatnonzero(enough & (claimed >= 0))
    # Best first; of equal scores the earlier row, as the challenge's code orders the boxes of one frame.
    claims = claims[np.argsort(-score[claims], kind="stable")]
    _, first = np.unique(claimed[claims], return_index=True)
    correct = np.zeros(len(claimed), bool)
    correct[claims[first]] = True
    assert correct.sum() <= num_truth
    return correct


def _group_key(frame: NDArray[np.int64], label: NDArray[np.int32], num_labels: int) -> NDArray[np.int64]:
    """Numbers frames and classes in their order; classes beyond `num_labels`, which have no truth, share one."""
    return frame * (num_labels + 1) + np.minimum(label, num_labels)


def _chunks(count: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yields rows with pairs, so many at a time that their pairs stay few; a single row may have more."""
    rows = np.flatnonzero(count)
    total = np.cumsum(count[rows])
    start = 0
    while start < len(rows):
        done = total[start - 1] if start else 0
        end = max(int(np.searchsorted(total, done + _PAIRS_AT_ONCE, "right")), start + 1)
        yield rows[start:end]
        start = end
