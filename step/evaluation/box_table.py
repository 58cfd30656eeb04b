"""Holds rows of AVA's csv as columns, and checks them (torch-free); `step.evaluation.ava_csv` reads them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from step.errors import StepError

Last = Literal["score", "person"]
_SLACK = 1e-6  # corners are rounded to some digits
_MOST_SECONDS = 1e7  # four months; what is beyond is no second of a video
LARGEST_LABEL = 65535
"""AVA's ids end at 80; other data sets may have more."""


@dataclass(frozen=True)
class BoxTable:
    """Holds the rows of one file, in the file's order.

    Attributes:
        path: the file, for messages.
        videos: names, each once, in the order of their first row.
        video: int32 [R] index into `videos`.
        second: float64 [R], of the key frame.
        boxes_xyxy: float64 [R, 4] in [0, 1].
        label: int32 [R] class id.
        last: float64 [R] score, or index into `people`; NaN where the file has none.
        lines: int64 [R] line of the file, from 1.
        empty: (video name, second) of key frames named without boxes.
        people: ids of ground truth, in order of their numbers and whatever their length.
    """

    path: Path
    videos: tuple[str, ...]
    video: NDArray[np.int32]
    second: NDArray[np.float64]
    boxes_xyxy: NDArray[np.float64]
    label: NDArray[np.int32]
    last: NDArray[np.float64]
    lines: NDArray[np.int64]
    empty: tuple[tuple[str, float], ...] = ()
    people: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[Any]) -> "BoxTable":
        """Takes some of the rows, by index or by mask."""
        columns = ("video", "second", "boxes_xyxy", "label", "last", "lines")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def where(self, row: int) -> str:
        """Names the place of a row, for a message."""
        return f"{self.path}, line {self.lines[row]}"


def second_text(second: float) -> str:
    """Returns a second in AVA's four digits; with milliseconds if between two, which AVA does not have."""
    return f"{int(second):04d}" if second == int(second) else f"{second:08.3f}"


def check_boxes(table: BoxTable, *, last: Last) -> None:
    """Refuses numbers that are none, and boxes that are none.

    Raises:
        StepError: the first such row.
    """
    x1, y1, x2, y2 = table.boxes_xyxy.T
    boxes = table.boxes_xyxy
    checks = [
        (~are_seconds(table.second), "the second is {second}; it must be a number, at least 0"),
        (~np.isfinite(boxes).all(1), "the box is {box}; every corner must be a number"),
        ((boxes < -_SLACK).any(1) | (boxes > 1 + _SLACK).any(1), "the box is {box}; corners must be within [0, 1]"),
        ((x2 < x1) | (y2 < y1), "the box is {box}; x1 <= x2 and y1 <= y2 must hold"),
        ((table.label < 1) | (table.label > LARGEST_LABEL), f"the class is {{label}}; ids are 1 to {LARGEST_LABEL}"),
    ]
    if last == "score":
        checks.append((~np.isfinite(table.last), "the score is {last}; it must be a number"))
    for wrong, message in checks:
        if wrong.any():
            row = int(np.argmax(wrong))
            said = message.format(
                second=table.second[row],
                box=[float(c) for c in boxes[row]],
                label=table.label[row],
                last=table.last[row],
            )
            raise StepError(f"{table.where(row)}: {said}")


def are_seconds(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Marks the values that can be seconds of a video."""
    return (values >= 0) & (values < _MOST_SECONDS)


def find_duplicate(table: BoxTable) -> tuple[int, int] | None:
    """Finds the first row that repeats an earlier one (video, second, box, class, last column), and the earlier."""
    columns = [table.last, table.label, *table.boxes_xyxy.T, table.second, table.video]
    order = np.lexsort(columns)
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        values = column[order]
        same &= (values[1:] == values[:-1]) | ((values[1:] != values[1:]) & (values[:-1] != values[:-1]))
    if not same.any():
        return None
    repeated = order[1:][same]
    first = int(np.argmin(repeated))  # lexsort is stable: of equal rows the earlier stands first
    return int(repeated[first]), int(order[:-1][same][first])
