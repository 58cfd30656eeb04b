"""Lays out the charts of step-eval's page (torch-free)."""

from collections.abc import Mapping

import numpy as np

from step.classes import class_group, class_name
from step.evaluation.confusion import confusion
from step.evaluation.frame_map import ClassResult
from step.evaluation.scoring import Score
from step.pages.charts import MOST_BARS, MOST_PANELS, Bar, Color, Curve, Matrix
from step.pages.page import FirstRows

_GROUP_COLOR: dict[str, Color] = {
    "person movement": "blue",
    "object manipulation": "orange",
    "person interaction": "green",
    "other": "grey",
}
_MOST_CONFUSED = 24
_NAME_LENGTH = 26


def group_colors(results: Mapping[int, ClassResult]) -> dict[str, Color]:
    """Gives the colours of AVA's kinds of actions, of those that have classes here."""
    there = {class_group(label) for label in results}
    return {group: color for group, color in _GROUP_COLOR.items() if group in there}


def class_bars(results: Mapping[int, ClassResult], names: Mapping[int, str]) -> FirstRows[Bar]:
    """Lays out the average precision of every class, best first."""
    bars = [
        Bar(
            name=class_label(result.label, names),
            text=f"{result.average_precision:.3f}, {result.num_truth:,} true",
            color=_GROUP_COLOR[class_group(result.label)],
            percent=round(100 * result.average_precision, 1),
        )
        for result in _ranked(results)
    ]
    return FirstRows.of(bars, MOST_BARS)


def class_curves(results: Mapping[int, ClassResult], names: Mapping[int, str]) -> FirstRows[Curve]:
    """Lays out precision against recall of every class, best first, with the envelope whose area counts."""
    ranked = _ranked(results)
    curves = [
        Curve.of(
            class_label(result.label, names),
            f"AP {result.average_precision:.3f}",
            _GROUP_COLOR[class_group(result.label)],
            recall=result.recall,
            precision=result.precision,
        )
        for result in ranked[:MOST_PANELS]
    ]
    return FirstRows(curves, len(ranked))


def confusion_matrices(score: Score, iou: float) -> tuple[Matrix, Matrix] | None:
    """Lays out what people who do one thing also do, and what was detected at them; the classes with most ground truth.

    Returns:
        None without classes.
    """
    most = sorted(score.results[iou].values(), key=lambda result: -result.num_truth)[:_MOST_CONFUSED]
    if not most:
        return None
    results = {result.label: result for result in sorted(most, key=lambda result: result.label)}
    truth, found = score.truth.boxes, score.detections.boxes
    there, detected = (boxes.take(np.isin(boxes.label, list(results))) for boxes in (truth, found))
    table = confusion(there, detected, results, iou=iou)
    labels = [_short(class_label(label, score.names)) for label in table.labels]
    return (
        Matrix.of("Who does the row's action also does (ground truth)", labels, table.truth),
        Matrix.of("Detected at who does the row's action", labels, table.found),
    )


def class_label(label: int, names: Mapping[int, str]) -> str:
    """Gives the name of a class: the label map's, or AVA's."""
    return names.get(label) or class_name(label)


def _ranked(results: Mapping[int, ClassResult]) -> list[ClassResult]:
    return sorted(results.values(), key=lambda result: -result.average_precision)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
