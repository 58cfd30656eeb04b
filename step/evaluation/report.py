"""Writes what came of scoring: a csv of classes, a page with figures and images of mistakes (torch-free)."""

import base64
import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from step.classes import class_group, class_name
from step.errors import StepError
from step.evaluation.box_table import second_text
from step.evaluation.confusion import confusion
from step.evaluation.mistakes import Mistake, worst_false_negatives, worst_false_positives
from step.evaluation.report_figures import draw_bars, draw_confusion, draw_curves
from step.evaluation.scoring import Score
from step.files.atomic import atomic_path
from step.shown import spreadsheet_cell

KeyFrameReader = Callable[[str, int], NDArray[np.uint8]]
_MOST_MISTAKES, _MOST_OF_CLASS = 18, 3
_THUMBNAIL_PX = 240
_RIGHT_RGB, _WRONG_RGB = (0, 200, 90), (255, 70, 50)


def write_class_csv(score: Score, path: Path) -> None:
    """Writes a row per class: id, name, kind, boxes, detections, and the average precision at every overlap."""
    with atomic_path(path) as scratch, scratch.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["class", "name", "group", "truth", "detections", *(f"AP@{iou:g}" for iou in score.results)])
        for label, result in next(iter(score.results.values())).items():
            name = score.names.get(label) or class_name(label)
            values = (f"{classes[label].average_precision:.8f}" for classes in score.results.values())
            cells = [label, spreadsheet_cell(name), class_group(label), result.num_truth, len(result.rows)]
            rows.writerow([*cells, *values])


def write_page(score: Score, path: Path, *, key_frame: KeyFrameReader | None = None) -> None:
    """Writes one HTML file with everything in it, of the first overlap of `score`.

    Args:
        score: what came of scoring.
        path: to write.
        key_frame: reads a key frame, uint8 [H, W, 3] RGB; None for a page without images of mistakes. Where it raises
            a StepError, the page says so.

    Raises:
        StepError: nowhere to write, or a package that is missing.
    """
    check_packages()
    import jinja2

    iou, results = next(iter(score.results.items()))
    wrong = worst_false_positives(score, iou=iou, most=_MOST_MISTAKES, most_of_class=_MOST_OF_CLASS)
    missed = worst_false_negatives(score, iou=iou, most=_MOST_MISTAKES, most_of_class=_MOST_OF_CLASS)
    table = confusion(score.truth.boxes, score.detections.boxes, results, iou=iou)
    figures: dict[str, bytes] = {}
    if results:
        figures = {
            "bars": draw_bars(results, score.names),
            "curves": draw_curves(results, score.names),
            "confusion": draw_confusion(table, score.names),
        }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("step.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("report.html.jinja").render(
        results=score.detections.table.path,
        truth=score.truth.table.path,
        iou=f"{iou:g}",
        means={f"{each:g}": score.mean_ap(each) for each in score.results},
        groups=score.group_ap(iou),
        notes=score.notes,
        counts=score.counts,
        options=score.as_json()["options"],
        classes=[
            {
                "id": label,
                "name": score.names.get(label) or class_name(label),
                "truth": result.num_truth,
                "detections": len(result.rows),
                "values": [f"{each[label].average_precision:.4f}" for each in score.results.values()],
                "threshold": f"{table.threshold[label]:.3f}" if np.isfinite(table.threshold[label]) else "none",
            }
            for label, result in results.items()
        ],
        figures={name: _data_url(content) for name, content in figures.items()},
        wrong=[_shown(mistake, score, key_frame) for mistake in wrong],
        missed=[_shown(mistake, score, key_frame) for mistake in missed],
    )
    with atomic_path(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def check_packages() -> None:
    """Checks that a page can be written.

    Raises:
        StepError: a package is missing.
    """
    for name in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise StepError(f"--html needs {name}; install it with: pip install 'step-trt[eval]'")


def _shown(mistake: Mistake, score: Score, key_frame: KeyFrameReader | None) -> dict[str, Any]:
    """Describes a mistake as the page shows it."""
    is_whole = mistake.second == int(mistake.second)
    image, reason = None, None
    if key_frame is not None:
        try:
            if not is_whole or mistake.video not in score.truth.table.videos:
                raise StepError("not a key frame of the data set")
            thumbnail = _thumbnail(key_frame(mistake.video, int(mistake.second)), mistake, score)
            image = _data_url(cv2.imencode(".jpg", thumbnail[..., ::-1])[1].tobytes(), "jpeg")
        except StepError as error:  # results may name key frames that are not there
            reason = str(error)
    return {
        "image": image,
        "reason": reason,
        "name": score.names.get(mistake.label) or class_name(mistake.label),
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


def _data_url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
