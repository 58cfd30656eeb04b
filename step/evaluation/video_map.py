"""Computes video-mAP: average precision of tubes, detections of one class linked over key frames (torch-free).

Shape legend: K key frames of a tube.

Two tubes overlap by (key frames in both / key frames in either) times the mean IoU of their boxes in those in both. A
tube's score is the mean of its boxes'. Matching and average precision are then those of frame-mAP.

Source: Weinzaepfel et al., "Learning to track for spatio-temporal action localization", section 5.1 (overlap of
tubes); Singh et al., "Online real-time multiple spatiotemporal action localisation and prediction", section 3.4
(greedy linking by score).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from step.errors import StepError
from step.evaluation.box_table import BoxTable
from step.evaluation.frame_map import area_under_envelope, paired_box_iou

_LARGEST_GAP_S = 1.0  # between neighbouring key frames of AVA; a longer one ends a tube
_LEAST_LINK_IOU = 0.2
_BEST_OF_FRAME = 10  # boxes of a class in a key frame that are linked


@dataclass(frozen=True)
class Tube:
    """Holds boxes of one person over time.

    Attributes:
        video: its name.
        label: class id.
        second: float64 [K], ascending.
        boxes_xyxy: float64 [K, 4].
        score: mean of the boxes' scores; 0 for ground truth.
    """

    video: str
    label: int
    second: NDArray[np.float64]
    boxes_xyxy: NDArray[np.float64]
    score: float


def video_ap(truth: list[Tube], detections: list[Tube], *, iou: float) -> dict[int, float]:
    """Computes the average precision of every class that has tubes in the ground truth.

    Args:
        truth: see `true_tubes`.
        detections: see `link_detections`.
        iou: least overlap of two tubes.
    """
    mine: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, tube in enumerate(truth):
        mine[tube.video, tube.label].append(number)
    claimed: set[int] = set()
    right: dict[int, list[bool]] = {tube.label: [] for tube in sorted(truth, key=lambda tube: tube.label)}
    for tube in sorted(detections, key=lambda tube: -tube.score):
        if tube.label not in right:
            continue
        candidates = mine[tube.video, tube.label]
        overlaps = [tube_iou(tube, truth[number]) for number in candidates]
        best = int(np.argmax(overlaps)) if overlaps else -1
        is_right = best >= 0 and overlaps[best] >= iou and candidates[best] not in claimed
        if is_right:
            claimed.add(candidates[best])
        right[tube.label].append(is_right)
    result = {}
    for label, marks in right.items():
        found = np.cumsum(marks)
        precision = found / np.arange(1, len(marks) + 1)
        total = sum(tube.label == label for tube in truth)
        result[label] = area_under_envelope(precision, found / total)
    return result


def tube_iou(first: Tube, second: Tube) -> float:
    """Returns the overlap in time times the mean overlap in space."""
    common, one, other = np.intersect1d(first.second, second.second, assume_unique=True, return_indices=True)
    if not len(common):
        return 0.0
    either = len(first.second) + len(second.second) - len(common)
    return float(len(common) / either * paired_box_iou(first.boxes_xyxy[one], second.boxes_xyxy[other]).mean())


def true_tubes(table: BoxTable) -> list[Tube]:
    """Makes tubes of a ground truth with person ids: a person's boxes of one class in key frames without a gap.

    Raises:
        StepError: a row without a person id, or a person who is in two places at once.
    """
    nobody = [number for number, person in enumerate(table.people) if person.startswith("-")]
    missing = np.flatnonzero(np.isnan(table.last) | np.isin(table.last, nobody))
    if len(missing):
        raise StepError(f"{table.where(int(missing[0]))}: has no person id, without which there is no video-mAP")
    order = np.lexsort((table.second, table.last, table.label, table.video))
    tubes = []
    keys = np.stack((table.video[order], table.label[order], table.last[order]), axis=1)
    breaks = (keys[1:] != keys[:-1]).any(1)
    gap_s = np.diff(table.second[order])
    twice = np.flatnonzero(~breaks & (gap_s == 0))
    if len(twice):
        row, other = order[twice[0] + 1], order[twice[0]]
        raise StepError(
            f"{table.where(int(row))}: person {table.people[int(table.last[row])]} has another box in that key frame, "
            f"in line {table.lines[other]}"
        )
    for rows in np.split(order, np.flatnonzero(breaks | (gap_s > _LARGEST_GAP_S)) + 1) if len(order) else ():
        video, label = table.videos[table.video[rows[0]]], int(table.label[rows[0]])
        tubes.append(Tube(video, label, table.second[rows], table.boxes_xyxy[rows], 0.0))
    return tubes


def link_detections(table: BoxTable) -> list[Tube]:
    """Links detections to tubes greedily: in a key frame the tubes, best first, take their best overlapping box.

    A tube that finds none ends; a box that no tube takes begins one. Of a class, the ten best boxes of a key frame are
    linked.
    """
    tubes: list[Tube] = []
    order = np.lexsort((-table.last, table.second, table.label, table.video))
    keys = np.stack((table.video[order], table.label[order]), axis=1)
    for rows in np.split(order, np.flatnonzero((keys[1:] != keys[:-1]).any(1)) + 1) if len(order) else ():
        tubes += _link_class(table, rows)
    return tubes


def _link_class(table: BoxTable, rows: NDArray[np.int64]) -> Iterator[Tube]:
    """Links rows of one video and class, which come by second and then best first."""
    growing: list[list[int]] = []
    for here in np.split(rows, np.flatnonzero(np.diff(table.second[rows])) + 1):
        free = here[:_BEST_OF_FRAME].tolist()
        second = table.second[free[0]]
        still: list[list[int]] = []
        for tube in sorted(growing, key=lambda tube: -float(np.mean(table.last[tube]))):
            row = _best_link(table, tube[-1], free) if second - table.second[tube[-1]] <= _LARGEST_GAP_S else None
            if row is None:
                yield _tube(table, tube)
            else:
                free.remove(row)
                still.append([*tube, row])
        growing = still + [[row] for row in free]
    for tube in growing:
        yield _tube(table, tube)


def _best_link(table: BoxTable, before: int, free: list[int]) -> int | None:
    """Finds the best-scored of the rows that overlap a box; None where none does."""
    if not free:
        return None
    overlap = paired_box_iou(np.broadcast_to(table.boxes_xyxy[before], (len(free), 4)), table.boxes_xyxy[free])
    good = np.flatnonzero(overlap >= _LEAST_LINK_IOU)
    return free[good[0]] if len(good) else None


def _tube(table: BoxTable, rows: list[int]) -> Tube:
    video, label = table.videos[table.video[rows[0]]], int(table.label[rows[0]])
    return Tube(video, label, table.second[rows], table.boxes_xyxy[rows], float(np.mean(table.last[rows])))
