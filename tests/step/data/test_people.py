"""Which rows of ground truth are one person."""

from itertools import permutations

import pytest

from step.data.check import check
from step.data.people import group_people
from step.evaluation.ava_csv import read_boxes

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


@pytest.mark.parametrize("number", ["0", "99999999999999999999"])
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


def test_ids_below_zero_are_none(group):
    people, problems, frame = group(f"{A},12,-1", f"{B},14,-1", f"{A},17,7")
    assert people == [[1, 3], [2]]
    assert problems[0].startswith("person id -1 is taken for none (2 rows)")
    assert [frame.sole_id(person) is None for person in frame.people] == [False, True]


def test_the_row_with_the_id_is_named(group):
    _, problems, _ = group(f"{A},12,", f"{A},13,5", f"{B},14,5")
    assert "id 5 in v, second 3 (lines 2 and 3)" in problems[0]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_rows_does_not_matter(order, group):
    """The first two lie nearer to each other, and the third agrees with the second only."""
    corners = ("0.100", "0.103", "0.107")
    rows = [f"{corner},0.1,0.3,0.9,{12 + number}," for number, corner in enumerate(corners)]
    assert len(group(*(rows[number] for number in order))[0]) == 1
    rows = [f"{row}{number}" for row, number in zip(rows, ("1", "", "2"), strict=True)]
    people = group(*(rows[number] for number in order))[0]
    named = sorted(sorted(order[row - 1] for row in person) for person in people)
    assert named == [[0, 1], [2]]
