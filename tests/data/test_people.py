"""Which rows of ground truth are one person."""

import pytest

from step.data.check import check
from step.data.people import group_people
from step.evaluation.box_table import read_boxes

A, B = "0.1,0.1,0.3,0.9", "0.6,0.1,0.9,0.9"


@pytest.fixture
def group(tmp_path):
    def group(*rows):
        path = tmp_path / "t.csv"
        path.write_text("".join(f"v,0003,{row}\n" for row in rows))
        (frame,) = group_people(read_boxes(path, last="person"))
        problems = [problem.text for problem in check(path, None)]
        return [[row + 1 for row in person.rows] for person in frame.people], problems, frame

    return group


@pytest.mark.parametrize("number", ["0", "-1", "99999999999999999999"])
def test_one_id_for_everybody(number, group):
    people, problems, frame = group(f"{A},12,{number}", f"{B},14,{number}", f"{A},17,{number}")
    assert people == [[1, 3], [2]]
    assert "a person id stands for several boxes of a key frame 1 times" in problems[0]
    assert f"id {number} in v, second 3 (lines 1 and 2)" in problems[0]
    assert [frame.sole_id(person) for person in frame.people] == [None, None]


def test_ids_that_differ_beyond_double_precision(group):
    people, problems, frame = group(f"{A},12,9223372036854775806", f"{B},14,9223372036854775807")
    assert (people, problems) == ([[1], [2]], [])
    assert None not in [frame.sole_id(person) for person in frame.people]


def test_missing_ids(group):
    assert group(f"{A},12,", f"{B},14,", f"{A},17,")[0] == [[1, 3], [2]]
    assert group(f"{A},12,5", f"{A},14,")[0] == [[1, 2]]


def test_rounded_corners_are_one_box(group):
    assert group(f"{A},12,5", "0.1004,0.1,0.3,0.8996,17,5")[0] == [[1, 2]]
    assert group(f"{A},12,5", "0.1004,0.1,0.3,0.8996,17,6")[0] == [[1], [2]]


def test_a_number_for_every_row(group):
    people, problems, _ = group(f"{A},12,1", f"{A},17,2", f"{B},14,3")
    assert people == [[1, 2], [3]]
    assert "one box has several person ids 1 times, first: ids 1 and 2, line 1; it is taken for one" in problems[0]
