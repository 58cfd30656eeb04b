"""Confusion and mistakes on a scene worked out by hand."""

import numpy as np
import pytest

from step.evaluation.confusion import best_threshold, confusion
from step.evaluation.frame_map import ClassResult
from step.evaluation.mistakes import worst_false_negatives, worst_false_positives
from step.evaluation.scoring import score_files

# Key frame 1: A stands and talks, B walks. Key frame 2: A stands, alone.
TRUTH = """v,1,0.0,0.0,0.2,1.0,12,0
v,1,0.0,0.0,0.2,1.0,79,0
v,1,0.5,0.0,0.8,1.0,14,1
v,2,0.0,0.0,0.2,1.0,12,0
"""
RESULTS = """v,1,0.0,0.0,0.2,1.0,12,0.9
v,1,0.0,0.0,0.2,0.9,12,0.8
v,1,0.5,0.0,0.8,1.0,12,0.7
v,1,0.4,0.0,0.6,1.0,14,0.6
v,1,0.9,0.0,1.0,1.0,14,0.5
v,2,0.1,0.0,0.3,1.0,12,0.4
"""


@pytest.fixture
def scored(tmp_path):
    (tmp_path / "gt.csv").write_text(TRUTH)
    (tmp_path / "r.csv").write_text(RESULTS)
    return score_files(tmp_path / "r.csv", tmp_path / "gt.csv")


def test_why_detections_are_wrong(scored):
    wrong = worst_false_positives(scored, iou=0.5, most=9, most_of_class=9)
    assert [(mistake.label, mistake.score, mistake.kind) for mistake in wrong] == [
        (12, 0.8, "found before"),
        (12, 0.7, "another action"),
        (14, 0.6, "badly placed"),
        (14, 0.5, "nobody there"),
        (12, 0.4, "badly placed"),
    ]
    assert [mistake.iou for mistake in wrong] == pytest.approx([0.9, 1.0, 0.25, 0, 1 / 3])
    assert (wrong[-1].video, wrong[-1].second, wrong[-1].is_missed) == ("v", 2.0, False)


def test_who_was_missed(scored):
    missed = worst_false_negatives(scored, iou=0.5, most=9, most_of_class=9)
    assert [(mistake.label, mistake.second, mistake.kind, mistake.score) for mistake in missed] == [
        (14, 1.0, "badly placed", 0.6),
        (79, 1.0, "missed", 0.0),
        (12, 2.0, "badly placed", 0.4),
    ]
    assert all(mistake.is_missed for mistake in missed)


def test_no_class_hides_the_others(scored):
    wrong = worst_false_positives(scored, iou=0.5, most=3, most_of_class=1)
    assert [mistake.label for mistake in wrong] == [12, 14]
    assert len(worst_false_negatives(scored, iou=0.5, most=2, most_of_class=9)) == 2


def test_two_who_stand_close(tmp_path):
    """One detection overlaps both and finds the one that it overlaps more."""
    (tmp_path / "gt.csv").write_text("v,1,0.0,0,0.5,1,12,0\nv,1,0.1,0,0.6,1,12,1\n")
    (tmp_path / "r.csv").write_text("v,1,0.0,0,0.5,1,12,0.9\n")
    (missed,) = worst_false_negatives(
        score_files(tmp_path / "r.csv", tmp_path / "gt.csv"), iou=0.5, most=9, most_of_class=9
    )
    assert (missed.kind, missed.iou) == ("taken for another", pytest.approx(4 / 6))


def test_confusion(scored):
    table = confusion(scored.truth.boxes, scored.detections.boxes, scored.results[0.5], iou=0.5)
    assert table.labels == [12, 14, 79]
    assert table.count.tolist() == [2, 1, 1]
    assert table.truth.tolist() == [[1, 0, 0.5], [0, 1, 0], [1, 0, 1]]
    # stand: F1 is 2/3 at 0.9, and falls with every wrong one after it; walk and talk are never found.
    assert table.threshold == {12: 0.9, 14: float("inf"), 79: float("inf")}
    assert table.found.tolist() == [[0.5, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_threshold_is_where_f1_is_largest():
    correct = np.array([True, True, False, True, False, False])
    right = np.cumsum(correct)
    result = ClassResult(
        label=1,
        average_precision=0.0,
        num_truth=4,
        precision=right / np.arange(1, 7),
        recall=right / 4,
        score=np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
        correct=correct,
        rows=np.arange(6),
    )
    assert best_threshold(result) == 0.6  # 3/4 and 3/4; before it 1 and 1/2


def test_nothing_at_all(tmp_path):
    (tmp_path / "gt.csv").write_text("")
    (tmp_path / "r.csv").write_text("")
    empty = score_files(tmp_path / "r.csv", tmp_path / "gt.csv")
    assert worst_false_positives(empty, iou=0.5, most=9, most_of_class=9) == []
    assert worst_false_negatives(empty, iou=0.5, most=9, most_of_class=9) == []
    assert confusion(empty.truth.boxes, empty.detections.boxes, {}, iou=0.5).labels == []
