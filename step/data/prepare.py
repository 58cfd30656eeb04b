"""Brings ground truth into one form: sorted, of the wanted classes, without excluded key frames (torch-free)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from step.errors import StepError
from step.evaluation.ava_csv import read_boxes, read_frames
from step.evaluation.ava_rows import ava_row, write_rows
from step.evaluation.box_table import BoxTable
from step.evaluation.label_map import read_label_map
from step.files.atomic import atomic_path

FIRST_SECOND, LAST_SECOND = 902, 1798
"""Seconds of a 15-minute AVA clip that are annotated (SPEC.md, "Clip and preprocessing")."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Reports what became of a file.

    Attributes:
        rows: that were written.
        key_frames: with a box.
        videos: with a box.
        dropped: how many rows were left out, by reason; only reasons that occurred.
        notes: what a reader should know, one line each.
    """

    rows: int
    key_frames: int
    videos: int
    dropped: dict[str, int]
    notes: tuple[str, ...]


def prepare(truth: Path, output: Path, *, label_map: Path | None = None, exclude: Path | None = None) -> Prepared:
    """Writes a csv of ground truth that everything else reads alike.

    Rows are ordered by video, second, person and class; seconds have four digits; lines end in a newline.

    Args:
        truth: AVA's csv, of any version.
        output: the file to write.
        label_map: pbtxt of the classes to keep; without it, all.
        exclude: csv of key frames (video, second) to leave out.

    Raises:
        StepError: a file that cannot be read, or the first line of one that is wrong; or nothing is left.
    """
    table = read_boxes(truth, last="person")
    dropped: dict[str, int] = {}
    keep = _first_of_equal_rows(table)
    dropped["repeat an earlier row"] = int((~keep).sum())
    if exclude is not None:
        in_excluded = _in_frames(table, read_frames(exclude))
        dropped["in excluded key frames"] = int((keep & in_excluded).sum())
        keep &= ~in_excluded
    if label_map is not None:
        of_class = np.isin(table.label, list(read_label_map(label_map)))
        dropped["of classes that the label map has not"] = int((keep & ~of_class).sum())
        keep &= of_class
    if not keep.any():
        what = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise StepError(f"{truth}: no row is left ({what or 'it has none'}); check --label-map and --exclude")
    kept = table.take(keep)
    kept = kept.take(_order(kept))
    with atomic_path(output) as path:
        write_boxes(kept, path)
    return Prepared(
        rows=len(kept),
        key_frames=len(np.unique(np.stack((kept.video.astype(np.float64), kept.second)), axis=1).T),
        videos=len(np.unique(kept.video)),
        dropped={reason: count for reason, count in dropped.items() if count},
        notes=_notes(table, kept),
    )


def write_boxes(table: BoxTable, path: Path) -> None:
    """Writes rows as AVA has them; persons without an id stay without."""
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in range(len(table)):
            person = "" if np.isnan(table.last[row]) else table.people[int(table.last[row])]
            video, second, corners = table.videos[table.video[row]], table.second[row], table.boxes_xyxy[row]
            write_rows(file, [ava_row(video, second, corners, table.label[row], person, form=".6g")])


def _order(table: BoxTable) -> NDArray[np.int64]:
    by_name = np.argsort(np.argsort(np.array(table.videos)))[table.video]
    order: NDArray[np.int64] = np.lexsort((table.label, table.last, table.second, by_name))
    return order


def _first_of_equal_rows(table: BoxTable) -> NDArray[np.bool_]:
    columns = np.column_stack(
        (table.video, table.second, table.boxes_xyxy, table.label, np.nan_to_num(table.last, nan=-1))
    )
    _, first = np.unique(columns, axis=0, return_index=True)
    keep = np.zeros(len(table), bool)
    keep[first] = True
    return keep


def _in_frames(table: BoxTable, frames: tuple[tuple[str, float], ...]) -> NDArray[np.bool_]:
    index = {video: number for number, video in enumerate(table.videos)}
    wanted = {(index[video], second) for video, second in frames if video in index}
    pairs = zip(table.video.tolist(), table.second.tolist(), strict=True)
    return np.fromiter((pair in wanted for pair in pairs), bool, len(table))


def _notes(table: BoxTable, kept: BoxTable) -> tuple[str, ...]:
    notes = []
    outside = (kept.second < FIRST_SECOND) | (kept.second > LAST_SECOND)
    if outside.any():
        notes.append(
            f"{int(outside.sum())} rows lie outside the seconds {FIRST_SECOND} to {LAST_SECOND} that AVA annotates, "
            f"first: line {kept.lines[np.flatnonzero(outside)[0]]}"
        )
    if len(table.empty):
        notes.append(f"{len(table.empty)} key frames without boxes are named, and were left out")
    if np.isnan(kept.last).any():
        notes.append(f"{int(np.isnan(kept.last).sum())} rows have no person id")
    return tuple(notes)
