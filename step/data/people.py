"""Finds which rows of ground truth are one person: ids alone do not say, since converters write one for everybody.

In a key frame, rows are of one person if their boxes agree and their ids do not contradict each other. Boxes agree if
no corner differs by more than rounding explains, each with its nearest first, in whatever order the rows are; rows of
the very same box are one person whatever their ids, since two people cannot be in one place. An id that stands for
several people in a key frame tells nothing there; one below 0 is none, as trackers have it.

Source: https://research.google.com/ava/download.html ("person_id"). Torch-free.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from step.evaluation.box_table import BoxTable

_ROUNDING = 0.0051  # of a corner in shares of the image: two digits, and half of one
_SAME = 1e-9


@dataclass
class Person:
    """Holds someone in one key frame.

    Attributes:
        box_xyxy: float64 [4], of the first row.
        rows: of the table.
        ids: of the rows that have one; indices into `BoxTable.people`.
    """

    box_xyxy: NDArray[np.float64]
    rows: list[int] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class KeyFramePeople:
    """Holds the people of one key frame.

    Attributes:
        video: index into `BoxTable.videos`.
        second: of the key frame.
        people: in the order of their first rows.
    """

    video: int
    second: float
    people: list[Person]

    def sole_id(self, person: Person) -> int | None:
        """Returns the id by which a person is found in other key frames; None where it does not tell people apart."""
        if len(person.ids) != 1:
            return None
        (number,) = person.ids
        return number if sum(number in other.ids for other in self.people) == 1 else None

    def shared_ids(self) -> Iterator[tuple[int, list[Person]]]:
        """Yields ids that stand for more than one person, and these people."""
        for number in sorted({number for person in self.people for number in person.ids}):
            having = [person for person in self.people if number in person.ids]
            if len(having) > 1:
                yield number, having


def group_people(table: BoxTable) -> Iterator[KeyFramePeople]:
    """Groups rows into the people of each key frame, in the order of their first rows.

    Args:
        table: ground truth.
    """
    frames: dict[tuple[int, float], list[int]] = {}
    for row in range(len(table)):
        frames.setdefault((int(table.video[row]), float(table.second[row])), []).append(row)
    for (video, second), rows in frames.items():
        yield KeyFramePeople(video, second, _join(_boxes(table, rows)))


def person_id(table: BoxTable, row: int) -> int | None:
    """Returns a row's id as an index into `BoxTable.people`; None where there is none, or one below 0."""
    if np.isnan(table.last[row]):
        return None
    number = int(table.last[row])
    return None if table.people[number].startswith("-") else number


def _boxes(table: BoxTable, rows: list[int]) -> list[Person]:
    """Puts rows of the very same box together."""
    found: dict[tuple[float, ...], Person] = {}
    for row in rows:
        person = found.setdefault(tuple(table.boxes_xyxy[row].tolist()), Person(table.boxes_xyxy[row]))
        person.rows.append(row)
        number = person_id(table, row)
        if number is not None:
            person.ids.add(number)
    return list(found.values())


def _join(people: list[Person]) -> list[Person]:
    """Joins people whose boxes agree, the nearest boxes first; equally near ones in the order of their corners."""
    boxes = np.stack([person.box_xyxy for person in people])
    distance = np.abs(boxes[:, None] - boxes[None]).max(2)
    pairs = zip(*np.nonzero(np.triu(distance <= _ROUNDING, 1)), strict=True)
    corners = [tuple(box) for box in boxes.tolist()]
    joined = list(range(len(people)))  # by each box, the one whose person it is
    for first, second in sorted(
        pairs, key=lambda pair: (distance[pair], *sorted((corners[pair[0]], corners[pair[1]])))
    ):
        one, other = sorted((joined[first], joined[second]))
        agree = not people[one].ids or not people[other].ids or people[one].ids & people[other].ids
        if one == other or not (agree or distance[first, second] <= _SAME):
            continue
        people[one].rows = sorted(people[one].rows + people[other].rows)
        people[one].ids |= people[other].ids
        joined = [one if number == other else number for number in joined]
    return [people[number] for number in sorted(set(joined))]
