import numpy as np
import pytest
import torch
from step_plugins import class_nms as class_nms_plugin

from step.ops.class_nms import class_nms, class_nms_op
from step.ops.detect import top_detections


@pytest.mark.parametrize("threshold", [0.3, 0.4, 0.5, 0.7])
def test_keeps_are_golden(threshold, golden_ops):
    boxes, scores = torch.from_numpy(golden_ops["nms_boxes"]), torch.from_numpy(golden_ops["nms_scores"])
    kept = class_nms(boxes[None], scores[None, :, None], score_threshold=0.0, iou_threshold=threshold)[0, :, 0]
    assert np.array_equal(np.flatnonzero(kept.numpy()), np.sort(golden_ops[f"nms_keep_{threshold}"]))


@pytest.mark.parametrize("seed", range(8))
def test_equals_greedy_with_ties(seed):
    state = np.random.RandomState(seed)
    count, classes = 34, 7
    low = state.uniform(0, 150, (2, count, 2))
    boxes = np.concatenate((low, low + state.uniform(5, 120, low.shape)), axis=2).astype(np.float32)
    # Scores of few values, so that many are equal.
    scores = (state.randint(0, 6, (2, count, classes)) / 10).astype(np.float32)
    kept = class_nms(torch.from_numpy(boxes), torch.from_numpy(scores), score_threshold=0.05, iou_threshold=0.4).numpy()
    expected = class_nms_plugin.reference(boxes, scores, score_threshold=0.05, iou_threshold=0.4)
    np.testing.assert_array_equal(kept, expected)


def test_a_chain_as_deep_as_there_are_boxes():
    """Each box overlaps only its neighbours: every second one stays, which takes N - 1 updates to find out."""
    count = 34
    left = torch.arange(count) * 10.0
    boxes = torch.stack((left, torch.zeros(count), left + 17.0, torch.full((count,), 50.0)), dim=1)
    scores = torch.linspace(0.9, 0.1, count)
    kept = class_nms(boxes[None], scores[None, :, None], score_threshold=0.0, iou_threshold=0.2)[0, :, 0]
    assert torch.nonzero(kept).flatten().tolist() == list(range(0, count, 2))


def test_nan_scores_are_dropped_and_harm_nobody():
    boxes = torch.tensor([[[0.0, 0.0, 50.0, 50.0], [1.0, 1.0, 51.0, 51.0]]])
    scores = torch.tensor([[[float("nan")], [0.5]]])
    kept = class_nms(boxes, scores, score_threshold=0.01, iou_threshold=0.4)
    assert kept.flatten().tolist() == [0.0, 0.5]


def test_operator_contract():
    torch.library.opcheck(class_nms_op, (torch.rand(2, 6, 4) * 50, torch.rand(2, 6, 3), 0.1, 0.4))


def test_top_detections_are_padded_and_sorted():
    boxes = torch.tensor([[[0.0, 0.0, 40.0, 40.0], [60.0, 60.0, 100.0, 100.0]]])
    scores = torch.tensor([[[0.9, 0.0], [0.2, 0.7]]])
    top = top_detections(
        scores,
        boxes,
        torch.tensor([3, 8]),
        image_size_px=100,
        score_threshold=0.1,
        nms_iou=0.4,
        max_detections=50,
    )
    torch.testing.assert_close(top.scores, torch.tensor([[0.9, 0.7, 0.2, 0.0]]))
    assert top.labels.tolist() == [[3, 8, 3, 0]]
    assert top.tube_indices.tolist() == [[0, 1, 1, -1]]
    assert top.counts.tolist() == [3]
    torch.testing.assert_close(top.boxes[0, 1], torch.tensor([0.6, 0.6, 1.0, 1.0]))
    assert top.boxes[0, 3].tolist() == [0.0] * 4
