"""Finds what is missing or wrong in a data set's annotations and frames (torch-free)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from step.data.frame_store import CLIP_PARTS, is_complete, read_index, second_folder
from step.data.people import group_people, person_id
from step.errors import StepError
from step.evaluation.ava_csv import read_boxes
from step.evaluation.box_table import BoxTable, find_duplicate
from step.evaluation.label_map import read_label_map

_SHOWN = 5  # seconds named in a message


@dataclass(frozen=True)
class Problem:
    """Describes one thing that is wrong.

    Attributes:
        where: file, video or line.
        text: what is wrong, the value, what to do.
    """

    where: str
    text: str


def check(
    truth: Path,
    frames: Path | None,
    *,
    label_map: Path | None = None,
    progress: Callable[[str], None] = lambda _video: None,
) -> Iterator[Problem]:
    """Looks at a csv of ground truth and, where given, at the extracted frames that its clips need.

    Args:
        truth: the csv.
        frames: root of the extracted frames.
        label_map: pbtxt of the classes that there may be.
        progress: is called with the video that is being looked at.

    Yields:
        Problems, in order of file, then video.

    Raises:
        StepError: a file that cannot be read at all.
    """
    try:
        table = read_boxes(truth, last="person")
    except StepError as error:
        if not truth.is_file():
            raise
        yield Problem(str(truth), str(error).removeprefix(f"{truth}, "))
        return
    if not len(table):
        yield Problem(str(truth), "has no boxes")
    repeated = find_duplicate(table)
    if repeated is not None:
        yield Problem(table.where(repeated[0]), f"repeats line {table.lines[repeated[1]]}; step-data prepare drops it")
    yield from _people(table)
    if label_map is not None:
        yield from _labels(table, read_label_map(label_map))
    if frames is not None:
        if not frames.is_dir():
            raise StepError(f"{frames}: no such folder; extract the frames: step-data extract")
        for number, video in sorted(enumerate(table.videos), key=lambda pair: pair[1]):
            progress(video)
            yield from _frames(frames, video, set(table.second[table.video == number].tolist()))


def _people(table: BoxTable) -> Iterator[Problem]:
    """Yields ids that do not tell people apart: each kind once, with its first lines."""
    shared, merged = 0, 0
    first_shared = first_merged = ""
    for frame in group_people(table):
        for number, people in frame.shared_ids():
            shared += 1
            having = [next(row for row in person.rows if person_id(table, row) == number) for person in people[:2]]
            lines = " and ".join(str(table.lines[row]) for row in having)
            place = f"{table.videos[frame.video]}, second {frame.second:g}"
            first_shared = first_shared or f"id {table.people[number]} in {place} (lines {lines})"
        for person in frame.people:
            if len(person.ids) > 1:
                merged += 1
                ids = " and ".join(table.people[number] for number in sorted(person.ids)[:2])
                first_merged = first_merged or f"ids {ids}, line {table.lines[person.rows[0]]}"
    nobody = [row for row in range(len(table)) if not np.isnan(table.last[row]) and person_id(table, row) is None]
    if nobody:
        yield Problem(
            table.where(nobody[0]),
            f"person id {table.people[int(table.last[nobody[0]])]} is taken for none ({len(nobody)} rows); people are "
            "told apart by their boxes, and not followed from one key frame to the next",
        )
    if shared:
        yield Problem(
            str(table.path),
            f"a person id stands for several boxes of a key frame {shared} times, first: {first_shared}; people are "
            "told apart by their boxes, and not followed from one key frame to the next",
        )
    if merged:
        yield Problem(
            str(table.path),
            f"one box has several person ids {merged} times, first: {first_merged}; it is taken for one person",
        )


def _labels(table: BoxTable, names: dict[int, str]) -> Iterator[Problem]:
    outside = ~np.isin(table.label, list(names))
    for label in np.unique(table.label[outside]).tolist():
        rows = np.flatnonzero(table.label == label)
        yield Problem(
            table.where(int(rows[0])),
            f"class {label} is not in the label map ({len(rows)} rows); step-data prepare drops it",
        )


def _frames(root: Path, video: str, seconds: set[float]) -> Iterator[Problem]:
    folder = root / video
    if not folder.is_dir():
        yield Problem(str(folder), "in the csv, but has no frames; extract them: step-data extract")
        return
    try:
        index = read_index(root, video)
        counts, last = index.counts, index.last_second
    except StepError as error:
        yield Problem(str(folder), str(error))
        return
    between = sorted(second for second in seconds if second != int(second))
    if between:
        yield Problem(str(folder), f"second {between[0]} is no whole number; clips are around whole seconds")
    beyond = sorted(second for second in seconds if last is not None and second > last)
    if beyond:
        yield Problem(str(folder), f"second {beyond[0]:g} is beyond the video, which ends in second {last}")
    without = sorted(second for second in seconds if index.gap_at(int(second)) is not None)
    if without:
        yield Problem(str(folder), f"second {without[0]:g} lies in a gap of the video, which shows no frame there")
    needed = sorted({int(second) + offset for second in seconds for offset, _ in CLIP_PARTS})
    needed = [second for second in needed if second >= 0 and (last is None or second <= last)]
    needed = [second for second in needed if index.gap_at(second) is None]
    missing = [second for second in needed if second not in counts and not second_folder(root, video, second).is_dir()]
    if missing:
        yield Problem(str(folder), f"seconds {some(missing)} are missing; extract them: step-data extract")
    present = [second for second in needed if second_folder(root, video, second).is_dir()]
    wrong = [second for second in present if not _is_whole(root, video, second, counts)]
    if wrong:
        yield Problem(
            str(folder),
            f"seconds {some(wrong)} lack frames or hold damaged ones; extract them again: step-data extract",
        )


def _is_whole(root: Path, video: str, second: int, counts: dict[int, int]) -> bool:
    """Checks by the index of `step-data extract`; other frames have no index, and then any number of them is right."""
    folder = second_folder(root, video, second)
    return is_complete(folder, counts[second]) if second in counts else any(folder.glob("*.jpg"))


def some(seconds: list[int]) -> str:
    """Names the first few of some seconds, and how many more there are."""
    shown = ", ".join(map(str, seconds[:_SHOWN]))
    return shown + (f" and {len(seconds) - _SHOWN} more" if len(seconds) > _SHOWN else "")
