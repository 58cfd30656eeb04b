"""Finding people among detections: which of them, of different classes, are one person.

Two rules, one after the other. The release's demo merges boxes that are nearly the same (`merge_classes`). What it
leaves are people who are shown twice, because the classes' boxes of one person differ by more than that; those are
joined (`join_same`).
"""

import dataclasses
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from step.arguments import check_score_threshold
from step.clips import tube_offsets_s
from step.config import StepConfig
from step_runtime.backends.base import Array
from step_runtime.people.person import Person

if TYPE_CHECKING:
    from step_runtime.clips.key_frame import KeyFrame

MERGE_IOU = 0.8
"""The release's: boxes that overlap more are one person's."""

SAME_IOU = 0.6
"""People whose boxes overlap more are one, unless their tubes part."""

PARTED_IOU = 1 / 3
"""Tubes part where they overlap less in any frame.

Boxes of one size whose IoU is below 1/3 are more than half their width (or height) apart: the middle of neither lies in
the other. Somebody who walks past another is that far away within half a second, and tubes reach 1.3 s to both sides.
What it leaves and what it joins: docs/measured.md.
"""

_D = TypeVar("_D", bound=np.generic)


def merge_classes(key_frame: "KeyFrame", config: StepConfig, *, score_threshold: float) -> list[Person]:
    """People at a key frame as the release's demo merges them, best score first; `KeyFrame.people` joins more.

    In order of score, a box whose IoU (plain, no "+1") with an earlier group's first box is above 0.8 joins that group;
    boxes and tubes of a group are averaged.

    Args:
        key_frame: one clip's detections.
        config: of the model that made them.
        score_threshold: detections have to be above it; in [0, 1).

    Raises:
        StepError: another threshold.

    Source: SPEC.md, "Detections of a step" (the release's demo).
    """
    check_score_threshold(score_threshold)
    detections = key_frame.detections
    boxes = _one(detections.boxes, np.float32)
    scores = _one(detections.scores, np.float32)
    labels, tubes = _one(detections.labels, np.int64), _one(detections.tube_indices, np.int64)
    tubes_01 = _one(detections.tubes_px, np.float32) / config.image_size_px
    size_px = (key_frame.width_px, key_frame.height_px, key_frame.width_px, key_frame.height_px)
    time_s = float(key_frame.time_s)
    times_s = tuple(time_s + offset_s for offset_s in tube_offsets_s(tubes_01.shape[1], config))
    count = int(detections.counts[0])
    waiting = [row for row in range(count) if scores[row] > score_threshold]
    people: list[Person] = []
    while waiting:
        first = waiting[0]
        overlaps = plain_iou(boxes[first], boxes[waiting]) > MERGE_IOU
        group = [row for row, joins in zip(waiting, overlaps, strict=True) if joins or row == first]
        waiting = [row for row in waiting if row not in group]
        box = boxes[group].mean(axis=0)
        people.append(
            Person(
                box=box,
                box_px=box * np.array(size_px, np.float64),
                actions=tuple((int(labels[row]), float(scores[row])) for row in group),
                names=tuple(config.class_name(int(labels[row])) for row in group),
                time_s=time_s,
                tube=tubes_01[tubes[group]].mean(axis=0),
                tube_times_s=times_s,
            )
        )
    return people


def join_same(people: list[Person]) -> list[Person]:
    """Joins people who are one: whose boxes overlap (IoU) by more than 0.6 and whose tubes never by less than 1/3.

    In order of score, each joins the one of those before whose box overlaps most with its own. That one keeps its box
    and its tube, since an average would drift and could come to overlap with others; it gains the actions, each class
    with its best score. So no two of those that are left overlap by more than 0.6, unless their tubes part.

    Args:
        people: of one key frame, best score first.
    """
    groups: list[list[Person]] = []
    for person in people:
        before = np.array([group[0].box for group in groups], np.float32).reshape(-1, 4)
        overlaps = plain_iou(person.box, before)
        closest_first = sorted(np.flatnonzero(overlaps > SAME_IOU), key=lambda index: -overlaps[index])
        same = (groups[index] for index in closest_first if not tubes_part(person.tube, groups[index][0].tube))
        group = next(same, None)
        if group is None:
            groups.append([person])
        else:
            group.append(person)
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def tubes_part(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two tubes [T', 4] overlap (IoU) by less than 1/3 in any frame."""
    return any(float(plain_iou(box, beside[None])[0]) < PARTED_IOU for box, beside in zip(one, other, strict=True))


def plain_iou(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of one box [4] with many [M, 4], corners as real numbers."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0), np.float32)


def _joined(group: list[Person]) -> Person:
    """The first of a group, with the actions of all of them."""
    found = [
        (score, label, name)
        for person in group
        for (label, score), name in zip(person.actions, person.names, strict=True)
    ]
    best: dict[int, tuple[float, str]] = {}
    for score, label, name in sorted(found, key=lambda action: -action[0]):
        best.setdefault(label, (score, name))
    return dataclasses.replace(
        group[0],
        actions=tuple((label, score) for label, (score, _) in best.items()),
        names=tuple(name for _, name in best.values()),
    )


def _one(rows: Array, dtype: type[_D]) -> NDArray[_D]:
    return np.asarray(rows[0], dtype)
