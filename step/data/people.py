"""Which rows of ground truth are one person: an id alone does not tell, since converters write one for everybody.

In a key frame, rows are of one person if their boxes agree and their ids do not contradict each other. Boxes agree if
no corner differs by more than rounding explains; rows of the very same box are one person whatever their ids, since two
people cannot be in one place. An id that stands for several people in a key frame tells nothing there.

Source: https://research.google.com/ava/download.html ("person_id"). Torch-free.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from step.evaluation.box_table import BoxTable

_ROUNDING = 0.0051  # of a corner in shares of the picture: two digits, and half of one
_SAME = 1e-9


@dataclass
class Person:
    """Someone in one key frame.

    Attributes:
        box_xyxy: float64 [4], of the first row.
        rows: of the table.
        ids: of the rows that have one; indices into `BoxTable.people`.
    """

    box_xyxy: NDArray[np.float64]
    rows: list[int] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)

    def takes(self, box_xyxy: NDArray[np.float64], person: int | None) -> bool:
        """Whether a row is of this person."""
        difference = np.abs(self.box_xyxy - box_xyxy).max()
        agrees = person is None or not self.ids or person in self.ids
        return bool(difference <= (_ROUNDING if agrees else _SAME))


@dataclass(frozen=True)
class KeyFramePeople:
    """The people of one key frame.

    Attributes:
        video: index into `BoxTable.videos`.
        second: of the key frame.
        people: in the order of their first rows.
    """

    video: int
    second: float
    people: list[Person]

    def sole_id(self, person: Person) -> int | None:
        """The id by which a person can be found in other key frames; None where it does not tell people apart."""
        if len(person.ids) != 1:
            return None
        (number,) = person.ids
        return number if sum(number in other.ids for other in self.people) == 1 else None

    def shared_ids(self) -> Iterator[tuple[int, list[Person]]]:
        """Ids that stand for more than one person, and these."""
        for number in sorted({number for person in self.people for number in person.ids}):
            having = [person for person in self.people if number in person.ids]
            if len(having) > 1:
                yield number, having


def group_people(table: BoxTable) -> Iterator[KeyFramePeople]:
    """The people of each key frame, in the order of their first rows.

    Args:
        table: ground truth.
    """
    frames: dict[tuple[int, float], list[Person]] = {}
    for row in range(len(table)):
        people = frames.setdefault((int(table.video[row]), float(table.second[row])), [])
        person = None if np.isnan(table.last[row]) else int(table.last[row])
        box = table.boxes_xyxy[row]
        found = next((one for one in people if one.takes(box, person)), None)
        if found is None:
            people.append(found := Person(box))
        found.rows.append(row)
        if person is not None:
            found.ids.add(person)
    for (video, second), people in frames.items():
        yield KeyFramePeople(video, second, people)
