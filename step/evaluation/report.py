"""Writes what came of scoring: a csv of classes, a page with charts and images of mistakes (torch-free)."""

import base64
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from step.classes import class_group
from step.errors import StepError
from step.evaluation.box_table import second_text
from step.evaluation.confusion import best_threshold
from step.evaluation.frame_map import ClassResult
from step.evaluation.mistakes import Mistake, worst_false_negatives, worst_false_positives
from step.evaluation.report_charts import class_bars, class_curves, class_label, confusion_matrices, group_colors
from step.evaluation.scoring import Score
from step.files.atomic import atomic_path
from step.pages import page
from step.pages.charts import MOST_ROWS
from step.pages.page import FirstRows, Head
from step.shown import spreadsheet_cell

KeyFrameReader = Callable[[str, int], NDArray[np.uint8]]
_MOST_MISTAKES, _MOST_OF_CLASS = 18, 3
_MOST_MISSED = 3  # classes that the verdict names
_THUMBNAIL_PX = 240
_RIGHT_RGB, _WRONG_RGB = (0, 200, 90), (255, 70, 50)


@dataclass(frozen=True, kw_only=True)
class ScoredSubject:
    """Names what a page is about.

    Attributes:
        model: the model, or the file of results.
        truth: the data set or the file of ground truth.
        machine: where it was scored.
        date: when.
    """

    model: str
    truth: str
    machine: str
    date: str


def write_class_csv(score: Score, path: Path) -> None:
    """Writes a row per class: id, name, kind, boxes, detections, and the average precision at every overlap."""
    with atomic_path(path) as scratch, scratch.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["class", "name", "group", "truth", "detections", *(f"AP@{iou:g}" for iou in score.results)])
        for label, result in next(iter(score.results.values())).items():
            values = (f"{classes[label].average_precision:.8f}" for classes in score.results.values())
            name = spreadsheet_cell(class_label(label, score.names))
            rows.writerow([label, name, class_group(label), result.num_truth, len(result.rows), *values])


def write_page(score: Score, subject: ScoredSubject, path: Path, *, key_frame: KeyFrameReader | None = None) -> None:
    """Writes one HTML file with everything in it, of the first overlap of `score`.

    Args:
        score: what came of scoring.
        subject: of what.
        path: to write.
        key_frame: reads a key frame, uint8 [H, W, 3] RGB; None for a page without images of mistakes. Where it raises
            a StepError, the page says so.

    Raises:
        StepError: nowhere to write, or a package that is missing.
    """
    iou, results = next(iter(score.results.items()))
    wrong = worst_false_positives(score, iou=iou, most=_MOST_MISTAKES, most_of_class=_MOST_OF_CLASS)
    missed = worst_false_negatives(score, iou=iou, most=_MOST_MISTAKES, most_of_class=_MOST_OF_CLASS)
    num_right = sum(int(result.correct.sum()) for result in results.values())
    num_truth = sum(result.num_truth for result in results.values())
    values: dict[str, object] = {
        "iou": f"{iou:g}",
        "means": {f"{each:g}": f"{score.mean_ap(each):.4f}" for each in score.results},
        "groups": {group: f"{mean:.4f}" for group, mean in score.group_ap(iou).items()},
        "group_colors": group_colors(results),
        "bars": class_bars(results, score.names),
        "curves": class_curves(results, score.names),
        "matrices": confusion_matrices(score, iou),
        "wrong": FirstRows([_shown(each, score, key_frame) for each in wrong], _count_detections(results) - num_right),
        "missed": FirstRows([_shown(each, score, key_frame) for each in missed], num_truth - num_right),
        "classes": FirstRows.of(_class_rows(score, results), MOST_ROWS),
        "details": _conditions(score) | {name: f"{count:,}" for name, count in score.counts.items()},
    }
    head = Head(
        title=f"step-eval: {subject.model} on {subject.truth}",
        verdict=tuple(_verdict(score, iou)),
        facts={
            "Model": subject.model,
            "Ground truth": subject.truth,
            "Machine": subject.machine,
            "Date": subject.date,
        },
        notes=score.notes,
    )
    page.write_page(path, package="step.evaluation", template="report.html.jinja", head=head, values=values)


def _verdict(score: Score, iou: float) -> list[str]:
    """Says how good it is, what it does best and worst, and what it misses most."""
    ranked = sorted(score.results[iou].values(), key=lambda result: result.average_precision)
    num_truth = sum(result.num_truth for result in ranked)
    if not num_truth:
        return [f"Nothing to find: no class has ground truth, so frame-mAP@{iou:g} is {score.mean_ap(iou):.4f}."]
    line = f"frame-mAP@{iou:g} is {score.mean_ap(iou):.4f} over {_many(len(ranked), 'class', 'classes')}"
    if len(ranked) > 1:
        best, worst = (
            f"{class_label(each.label, score.names)} ({each.average_precision:.2f})" for each in (ranked[-1], ranked[0])
        )
        line += f": best {best}, worst {worst}"
    missed = {result.label: result.num_truth - int(result.correct.sum()) for result in ranked}
    num_missed = sum(missed.values())
    most = [label for label in sorted(missed, key=lambda label: -missed[label])[:_MOST_MISSED] if missed[label]]
    found = f"{100 * (num_truth - num_missed) / num_truth:.0f} % of the {num_truth:,} labelled actions are found"
    if most:
        found += f"; missed most: {', '.join(f'{class_label(each, score.names)} ({missed[each]:,})' for each in most)}"
    return [f"{line}.", f"{found}."]


def _class_rows(score: Score, results: dict[int, ClassResult]) -> Sequence[dict[str, Any]]:
    return [
        {
            "name": f"{label} {class_label(label, score.names)}",
            "cells": [
                f"{result.num_truth:,}",
                f"{len(result.rows):,}",
                *(f"{each[label].average_precision:.4f}" for each in score.results.values()),
                _threshold_text(result),
            ],
        }
        for label, result in results.items()
    ]


def _conditions(score: Score) -> dict[str, str]:
    """Names the conventions that it was scored by, in words."""
    options = score.options
    return {
        "least overlaps": ", ".join(f"{iou:g}" for iou in options.ious),
        "detections of a key frame that count": "all" if options.cap is None else f"the best {options.cap}",
        "detections where there is no truth": "are wrong"
        if options.frames_without_truth == "count"
        else "do not count",
    }


def _threshold_text(result: ClassResult) -> str:
    threshold = best_threshold(result)
    return f"{threshold:.3f}" if np.isfinite(threshold) else "none"


def _count_detections(results: dict[int, ClassResult]) -> int:
    return sum(len(result.rows) for result in results.values())


def _many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _shown(mistake: Mistake, score: Score, key_frame: KeyFrameReader | None) -> dict[str, Any]:
    """Describes a mistake as the page shows it."""
    is_whole = mistake.second == int(mistake.second)
    image, reason = None, None
    if key_frame is not None:
        try:
            if not is_whole or mistake.video not in score.truth.table.videos:
                raise StepError("not a key frame of the data set")
            thumbnail = _thumbnail(key_frame(mistake.video, int(mistake.second)), mistake, score)
            jpeg = cv2.imencode(".jpg", thumbnail[..., ::-1])[1].tobytes()
            image = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        except StepError as error:  # results may name key frames that are not there
            reason = str(error)
    return {
        "image": image,
        "reason": reason,
        "name": class_label(mistake.label, score.names),
        "where": f"{mistake.video} {second_text(mistake.second)}",
        "score": f"{mistake.score:.3f}" if mistake.score or not mistake.is_missed else None,
        "kind": mistake.kind,
        "iou": f"{mistake.iou:.2f}",
    }


def _thumbnail(frame: NDArray[np.uint8], mistake: Mistake, score: Score) -> NDArray[np.uint8]:
    """Draws the key frame with the people of its ground truth who do this (green) and the wrong box (red)."""
    height, width = frame.shape[:2]
    size = (round(width * _THUMBNAIL_PX / height), _THUMBNAIL_PX)
    canvas = np.ascontiguousarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    truth = score.truth
    mine = truth.table.take(truth.rows[truth.boxes.label == mistake.label])
    video = mine.videos.index(mistake.video) if mistake.video in mine.videos else -1
    there = mine.boxes_xyxy[(mine.video == video) & (mine.second == mistake.second)]
    for box, color in [*((box, _RIGHT_RGB) for box in there), (mistake.box_xyxy, _WRONG_RGB)]:
        x1, y1, x2, y2 = (round(float(corner)) for corner in box * [*size, *size])
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, 2)
    return np.asarray(canvas, np.uint8)
