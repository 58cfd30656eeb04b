import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime_helpers import key_frame
from step_runtime import KeyFrame, merge_classes
from step_runtime.people.merging import SAME_IOU, plain_iou, tubes_part

from step import StepConfig, StepError

CONFIG = StepConfig(image_size_px=100)


def test_boxes_of_one_person_merge():
    frame = key_frame([(12, 0.9, 0.1, 0.1, 0.5, 0.9), (79, 0.8, 0.1, 0.1, 0.5, 0.88), (14, 0.7, 0.6, 0.1, 0.9, 0.9)])
    people = merge_classes(frame, CONFIG, score_threshold=0.4)
    assert [person.actions for person in people] == [
        ((12, np.float32(0.9)), (79, np.float32(0.8))),
        ((14, np.float32(0.7)),),
    ]
    np.testing.assert_allclose(people[0].box, [0.1, 0.1, 0.5, 0.89], rtol=1e-6)
    np.testing.assert_allclose(people[0].tube[4], people[0].box, rtol=1e-6)


def test_a_box_joins_the_first_of_a_group_not_its_others():
    """B overlaps A, C overlaps B but not A: C is a person of its own."""
    frame = key_frame([(1, 0.9, 0.0, 0.0, 0.5, 1), (2, 0.8, 0.05, 0.0, 0.55, 1), (3, 0.7, 0.1, 0.0, 0.6, 1)])
    people = merge_classes(frame, CONFIG, score_threshold=0.0)
    assert [[label for label, _ in person.actions] for person in people] == [[1, 2], [3]]


@pytest.mark.parametrize(("width", "people"), [(0.79, 2), (0.81, 1)])
def test_iou_has_to_be_above_the_limit(width, people):
    frame = key_frame([(1, 0.9, 0.0, 0.0, 1.0, 1.0), (2, 0.8, 0.0, 0.0, width, 1.0)])
    assert len(merge_classes(frame, CONFIG, score_threshold=0.0)) == people


def test_threshold_and_empty_boxes():
    frame = key_frame([(1, 0.5, 0.2, 0.2, 0.2, 0.2), (2, 0.3, 0.0, 0.0, 1.0, 1.0)])
    people = merge_classes(frame, CONFIG, score_threshold=0.4)
    assert [person.score for person in people] == [0.5]
    assert merge_classes(frame, CONFIG, score_threshold=0.5) == []


def _moving(frame: KeyFrame, row: int, step: float) -> KeyFrame:
    """The same with the tube of a row that moves to the right, by so much of the picture a frame, through its box."""
    tubes_px = frame.detections.tubes_px.copy()
    tubes_px[0, row, :, ::2] += CONFIG.image_size_px * step * (np.arange(9) - 4)[:, None]
    return dataclasses.replace(frame, detections=frame.detections._replace(tubes_px=tubes_px))


STANDING, TALKING = (12, 0.9, 0.1, 0.1, 0.5, 0.9), (79, 0.8, 0.15, 0.1, 0.55, 0.9)  # their boxes overlap by 0.78


def test_a_person_is_not_shown_twice():
    frame = key_frame([STANDING, TALKING, (14, 0.7, 0.6, 0.1, 0.9, 0.9)])
    assert len(merge_classes(frame, CONFIG, score_threshold=0.4)) == 3
    first, second = frame.people()
    assert [label for label, _ in first.actions] == [12, 79]
    assert first.names == (CONFIG.class_name(12), CONFIG.class_name(79))
    assert second.name == CONFIG.class_name(14)
    np.testing.assert_array_equal(first.box, np.float32([0.1, 0.1, 0.5, 0.9]))  # of the better, no average
    np.testing.assert_allclose(first.tube, np.repeat(first.box[None], 9, axis=0), rtol=1e-6)


@pytest.mark.parametrize(("left", "people"), [(0.19, 1), (0.21, 2)])
def test_people_overlap_by_more_than_the_limit(left, people):
    """Boxes of the width 0.8 that are 0.19 and 0.21 apart overlap by 0.62 and 0.58."""
    frame = key_frame([(12, 0.9, 0.0, 0.0, 0.8, 1.0), (79, 0.8, left, 0.0, left + 0.8, 1.0)])
    assert len(frame.people()) == people


@pytest.mark.parametrize(("step", "people"), [(0.03, 1), (0.04, 2), (-0.03, 1), (-0.04, 2)])
def test_people_who_cross_are_two(step, people):
    """Their tubes part where boxes, 0.4 wide, are more than half of that apart: 0.05 and four steps, at an end."""
    frame = _moving(key_frame([STANDING, TALKING]), 1, step)
    assert len(frame.people()) == people


def test_each_joins_whom_it_overlaps_most():
    """The third box overlaps both others by more than 0.6, which overlap each other by less."""
    rows = [(1, 0.9, 0.0, 0.0, 0.5, 1), (2, 0.8, 0.16, 0.0, 0.66, 1), (3, 0.7, 0.09, 0.0, 0.59, 1)]
    assert [[label for label, _ in person.actions] for person in key_frame(rows).people()] == [[1], [2, 3]]


def test_a_class_is_named_once():
    """Both walkers are the better standing one: the class has its better score."""
    rows = [(12, 0.9, 0.1, 0, 0.5, 1), (14, 0.8, 0.02, 0, 0.42, 1), (14, 0.7, 0.18, 0, 0.58, 1)]
    (person,) = key_frame(rows).people()
    assert person.actions == ((12, pytest.approx(0.9)), (14, pytest.approx(0.8)))


@given(
    st.lists(
        st.tuples(*[st.integers(1, 5), *[st.integers(0, 6)] * 2, *[st.integers(3, 9)] * 2]), min_size=1, max_size=12
    )
)
def test_no_two_people_are_one(drawn):
    """Whatever the boxes: afterwards only those overlap by more than 0.6 whose tubes part, and no action is lost."""
    rows = [
        (label, 0.99 - index / 100, x / 20, y / 20, (x + width) / 20, (y + height) / 20)
        for index, (label, x, y, width, height) in enumerate(drawn)
    ]
    frame = key_frame(rows)
    people = frame.people()
    assert [person.score for person in people] == sorted((person.score for person in people), reverse=True)
    for person, other in itertools.combinations(people, 2):
        assert plain_iou(person.box, other.box[None])[0] <= SAME_IOU or tubes_part(person.tube, other.tube)
    assert {label for person in people for label, _ in person.actions} == {row[0] for row in rows}
    assert people[0].actions[0] == (rows[0][0], pytest.approx(rows[0][1]))


@pytest.mark.parametrize("threshold", [1, -0.1, float("nan"), "0.4", None, True])
def test_thresholds_out_of_range(threshold):
    frame = key_frame([STANDING])
    with pytest.raises(StepError, match=r"^`score_threshold` is .*; it must be a number in \[0, 1\)$"):
        frame.people(threshold)
    with pytest.raises(StepError, match="`score_threshold` is"):
        merge_classes(frame, CONFIG, score_threshold=threshold)


def test_arrays_are_the_callers():
    """What is done to a person's arrays reaches neither the detections nor another person's."""
    frame = key_frame([STANDING, (14, 0.7, 0.6, 0.1, 0.9, 0.9)])
    before = frame.to_json()
    for person in frame.people():
        for array in (person.box, person.box_px, person.tube):
            assert array.flags.c_contiguous
            array[...] = -1
    assert frame.to_json() == before


def test_records_print_in_a_line():
    frame = key_frame([STANDING, TALKING])
    (person,) = frame.people()
    assert max(len(repr(frame)), len(repr(person))) < 400
    assert "\n" not in repr(frame) + repr(person)
