"""Writes AVA's rows, here alone: video, second, four corners, class, and a score or a person (torch-free).

Source: https://research.google.com/ava/download.html ("CSV format"); SPEC.md, "Detections of a step".
"""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import IO, Any

from step.evaluation.box_table import second_text

Row = list[str]
"""The cells of a row."""

DETECTION = ".4g"
"""How detections' corners and scores are written."""


def ava_row(
    video: str, second: float, corners: Iterable[float], label: int, last: str, *, form: str = DETECTION
) -> Row:
    """Makes one row.

    Args:
        video: its name.
        second: of the key frame.
        corners: x1, y1, x2, y2 in shares of the image.
        label: class id.
        last: score or person id, as it is written; "" for none.
        form: of the corners, as `format` takes it.
    """
    return [video, second_text(second), *(format(corner, form) for corner in corners), str(label), last]


def detection_rows(
    video: str, second: float, boxes: Iterable[Any], labels: Iterable[Any], scores: Iterable[Any]
) -> Iterator[Row]:
    """Makes the rows of a key frame's detections.

    Args:
        video: its name.
        second: of the key frame.
        boxes: [M, 4] in shares of the image.
        labels: [M] class ids.
        scores: [M] probabilities.
    """
    for corners, label, score in zip(boxes, labels, scores, strict=True):
        yield ava_row(video, second, corners, int(label), format(score, DETECTION))


def write_rows(file: IO[str], rows: Iterable[Row]) -> None:
    """Writes rows to a file that was opened with `newline=""`."""
    csv.writer(file, lineterminator="\n").writerows(rows)


def rows_text(rows: Iterable[Row]) -> str:
    """Returns the text of rows, each with its line's end."""
    text = io.StringIO(newline="")
    write_rows(text, rows)
    return text.getvalue()
