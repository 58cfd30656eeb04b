"""People as rows, one a person and action: of people.csv, people.parquet and `KeyFrame.to_pandas`."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

from step_runtime.people.person import DECIMALS, DECIMALS_PX, DECIMALS_S, Person

Cell = str | int | float

COLUMNS: dict[str, type[Cell]] = {
    "video": str,
    "time_s": float,
    "frame": int,
    "person": int,
    "class_id": int,
    "class_name": str,
    "confidence": float,
    "x1_px": float,
    "y1_px": float,
    "x2_px": float,
    "y2_px": float,
    "x1": float,
    "y1": float,
    "x2": float,
    "y2": float,
}
"""Columns and what they hold: `class_id`, `class_name` and `confidence` are called as supervision and Ultralytics do.

`time_s` is the key frame's; `person` counts the people of that key frame from 0, best first, and follows nobody from
one key frame to the next; corners are in pixels of the source's picture, and in shares of it.
"""


def people_rows(people: Iterable[Person], *, video: str, time_s: Fraction, frame: int) -> Iterator[tuple[Cell, ...]]:
    """One row a person and action, in the order of `COLUMNS`, rounded as in detections.jsonl.

    Args:
        people: of one key frame.
        video, time_s, frame: of the key frame.
    """
    seconds = round(float(time_s), DECIMALS_S)
    for number, person in enumerate(people):
        corners = (round(float(corner), DECIMALS) for corner in person.box)
        corners_px = (round(float(corner), DECIMALS_PX) for corner in person.box_px)
        where = (*corners_px, *corners)
        for (label, score), name in zip(person.actions, person.names, strict=True):
            yield (video, seconds, frame, number, label, name, round(score, DECIMALS), *where)
