"""Tubes, linking, and video-mAP worked out by hand."""

import numpy as np
import pytest

from step import StepError
from step.evaluation.ava_csv import read_boxes
from step.evaluation.video_map import Tube, link_detections, true_tubes, tube_iou, video_ap


@pytest.fixture
def table(tmp_path):
    def write(text: str, last: str):
        (tmp_path / "t.csv").write_text(text)
        return read_boxes(tmp_path / "t.csv", last=last)

    return write


def _tube(seconds, *, x=0.0, score=0.5, label=1, video="v", width=0.2):
    boxes = np.tile([x, 0.0, x + width, 1.0], (len(seconds), 1))
    return Tube(video, label, np.array(seconds, float), boxes, score)


def test_overlap_is_time_by_space():
    assert tube_iou(_tube([1, 2, 3]), _tube([1, 2, 3])) == pytest.approx(1)
    assert tube_iou(_tube([1, 2, 3, 4]), _tube([3, 4, 5, 6])) == pytest.approx(2 / 6)
    assert tube_iou(_tube([1, 2]), _tube([2, 3], x=0.1)) == pytest.approx(1 / 3 * 1 / 3)
    assert tube_iou(_tube([1, 2]), _tube([3, 4])) == 0


def test_ground_truth_tubes_end_at_gaps_and_by_class(table):
    rows = "".join(f"v,{second},0.1,0.1,0.2,0.5,12,7\n" for second in (4, 2, 3, 6, 7))
    tubes = true_tubes(table(rows + "v,2,0.1,0.1,0.2,0.5,14,7\nw,2,0.1,0.1,0.2,0.5,12,7\n", "person"))
    found = [(tube.video, tube.label, tube.second.tolist()) for tube in tubes]
    assert found == [("v", 12, [2, 3, 4]), ("v", 12, [6, 7]), ("v", 14, [2]), ("w", 12, [2])]
    assert true_tubes(table("", "person")) == []


def test_linking_follows_the_better_of_two_who_cross(table):
    """Two people pass each other; the one with the better scores is served first in every key frame."""
    rows = ""
    for second, (left, right) in enumerate([(0.0, 0.5), (0.1, 0.4), (0.2, 0.3), (0.3, 0.2)], 1):
        rows += f"v,{second},{left},0,{left + 0.3},1,12,0.9\nv,{second},{right},0,{right + 0.3},1,12,0.6\n"
    tubes = link_detections(table(rows, "score"))
    assert [(len(tube.second), pytest.approx(tube.score)) for tube in tubes] == [(4, 0.9), (4, 0.6)]
    np.testing.assert_allclose(tubes[0].boxes_xyxy[:, 0], [0, 0.1, 0.2, 0.3])


def test_a_tube_ends_where_nothing_overlaps_it(table):
    rows = "v,1,0,0,0.3,1,12,0.9\nv,2,0.6,0,0.9,1,12,0.8\nv,4,0.6,0,0.9,1,12,0.7\n"
    assert [tube.second.tolist() for tube in link_detections(table(rows, "score"))] == [[1], [2], [4]]
    assert link_detections(table("", "score")) == []


def test_only_the_ten_best_of_a_class_and_key_frame(table):
    rows = "".join(f"v,1,{i / 20},0,{i / 20 + 0.04},1,12,{0.5 + i / 100}\n" for i in range(14))
    scores = sorted(tube.score for tube in link_detections(table(rows, "score")))
    assert scores == pytest.approx([0.54 + i / 100 for i in range(10)])


def test_average_precision_by_hand():
    """Class 1: right, claimed before, right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1. Class 2: nothing."""
    truth = [_tube([1, 2, 3]), _tube([1, 2, 3], x=0.5), _tube([1], label=2)]
    found = [
        _tube([1, 2, 3], score=0.9),
        _tube([1, 2], score=0.8),
        _tube([1, 2, 3], x=0.5, score=0.7),
        _tube([5], label=3, score=0.99),
    ]
    assert video_ap(truth, found, iou=0.5) == {1: pytest.approx(0.5 + 0.5 * 2 / 3), 2: 0.0}
    assert video_ap(truth, [_tube([1, 2, 3], video="w")], iou=0.5) == {1: 0.0, 2: 0.0}
    assert video_ap([], found, iou=0.5) == {}


def test_what_a_ground_truth_must_have(table):
    with pytest.raises(StepError, match="line 1: has no person id, without which there is no video-mAP"):
        true_tubes(table("v,1,0,0,1,1,12\n", "person"))
    twice = "v,1,0,0,1,1,12,3\nv,2,0,0,1,1,12,3\nv,1,0,0,0.5,1,12,3\n"
    with pytest.raises(StepError, match="line 3: person 3 has another box in that key frame, in line 1"):
        true_tubes(table(twice, "person"))
