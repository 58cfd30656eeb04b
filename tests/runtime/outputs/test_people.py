import numpy as np
import pytest
from runtime_helpers import key_frame
from step_runtime import merge_classes

from step import StepConfig

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
