"""Frame-mAP against a slow transcription of its definition, and against results with known mAP."""

import numpy as np
import pytest
from helpers import shared_path

from step.evaluation.frame_map import Boxes, area_under_envelope, best_truth, frame_ap, mean_ap, paired_box_iou
from step.evaluation.scoring import ScoringOptions, score_files


def _slow_ap(truth: Boxes, found: Boxes, label: int, iou: float) -> float:
    """Detection by detection, as the challenge's evaluator goes."""

    def overlap(one, other):
        width = min(one[2], other[2]) - max(one[0], other[0])
        height = min(one[3], other[3]) - max(one[1], other[1])
        inter = max(width, 0) * max(height, 0)
        areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
        return inter / (areas - inter) if inter else 0.0

    rows = sorted(np.flatnonzero(found.label == label), key=lambda row: (-found.score[row], -row))
    taken, right = set(), []
    for row in rows:
        mine = np.flatnonzero((truth.frame == found.frame[row]) & (truth.label == label))
        overlaps = [overlap(truth.boxes_xyxy[i], found.boxes_xyxy[row]) for i in mine]
        best = int(np.argmax(overlaps)) if len(mine) else -1
        good = best >= 0 and overlaps[best] >= iou and mine[best] not in taken
        if good:
            taken.add(mine[best])
        right.append(good)
    total = (truth.label == label).sum()
    area, best_precision, recalls, precisions = 0.0, 0.0, [], []
    for count in range(1, len(right) + 1):
        precisions.append(sum(right[:count]) / count)
        recalls.append(sum(right[:count]) / total)
    for precision, recall, before in reversed(list(zip(precisions, recalls, [0.0, *recalls[:-1]], strict=True))):
        best_precision = max(best_precision, precision)
        area += (recall - before) * best_precision
    return area


def _random(state, count, *, frames, labels, scores=False):
    low = state.randint(0, 5, (count, 2)) / 10
    boxes = np.concatenate((low, low + state.randint(0, 6, (count, 2)) / 10), 1)
    score = state.randint(0, 20, count) / 20 if scores else None
    return Boxes(state.randint(0, frames, count), state.randint(1, labels, count).astype(np.int32), boxes, score)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_equals_the_slow_way(seed, iou):
    """Crowded frames, boxes without area, equal scores, classes and frames on one side only."""
    state = np.random.RandomState(seed)
    truth = _random(state, 40, frames=6, labels=5)
    found = _random(state, 150, frames=8, labels=7, scores=True)
    results = frame_ap(truth, found, iou=iou)
    assert list(results) == np.unique(truth.label).tolist()
    for label, result in results.items():
        assert result.average_precision == pytest.approx(_slow_ap(truth, found, label, iou), abs=1e-12)


def test_chunks_change_nothing(monkeypatch):
    state = np.random.RandomState(0)
    truth, found = (_random(state, n, frames=5, labels=4, scores=True) for n in (60, 200))
    whole = best_truth(truth, found)
    for size in (1, 7, 64):
        monkeypatch.setattr("step.evaluation.frame_map._PAIRS_AT_ONCE", size)
        for one, other in zip(whole, best_truth(truth, found), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("num_truth", "num_found"), [(0, 0), (0, 5), (5, 0)])
def test_nothing_on_a_side(num_truth, num_found):
    state = np.random.RandomState(0)
    truth = _random(state, num_truth, frames=2, labels=3)
    results = frame_ap(truth, _random(state, num_found, frames=2, labels=3, scores=True), iou=0.5)
    assert mean_ap(results) == 0
    assert list(results) == np.unique(truth.label).tolist()


def test_perfect_results():
    state = np.random.RandomState(0)
    low = state.rand(30, 2) / 2
    boxes = np.concatenate((low, low + 0.3), 1)
    truth = Boxes(np.arange(30), np.ones(30, np.int32), boxes)
    found = Boxes(truth.frame, truth.label, boxes, state.rand(30))
    assert mean_ap(frame_ap(truth, found, iou=1.0)) == pytest.approx(1)


def test_iou_of_boxes_without_area():
    point = np.array([[0.5, 0.5, 0.5, 0.5]])
    assert paired_box_iou(point, point) == 0
    assert paired_box_iou(point, np.array([[0.0, 0.0, 1.0, 1.0]])) == 0


def test_envelope():
    precision, recall = np.array([1, 0.5, 2 / 3, 0.5]), np.array([0.5, 0.5, 1, 1])
    assert area_under_envelope(precision, recall) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_known_map():
    folder = shared_path("real/ava_eval")
    for label_map in (None, folder / "action_list.txt"):
        scored = score_files(folder / "pred.csv", folder / "gt.csv", label_map=label_map)
        assert scored.mean_ap(0.5) == pytest.approx(0.09385522, abs=1e-8)


def test_the_cap_takes_the_best_of_a_frame(tmp_path):
    truth, results = tmp_path / "gt.csv", tmp_path / "r.csv"
    truth.write_text("a,0902,0.1,0.1,0.5,0.5,1,0\na,0902,0.5,0.5,0.9,0.9,2,1\n")
    results.write_text("a,902,0.1,0.1,0.5,0.5,1,0.2\na,902,0.5,0.5,0.9,0.9,2,0.9\nb,1,0,0,1,1,1,0.99\n")
    every = score_files(results, truth)
    assert every.results[0.5][1].average_precision == 0.5  # the box of video b stands first, and is wrong
    dropped = score_files(results, truth, options=ScoringOptions(frames_without_truth="drop"))
    assert dropped.mean_ap(0.5) == 1
    capped = score_files(results, truth, options=ScoringOptions(frames_without_truth="drop", cap=1))
    assert capped.mean_ap(0.5) == 0.5
    assert capped.counts["detections beyond the cap"] == 1
