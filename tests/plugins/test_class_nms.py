"""The NMS kernel's own source on the CPU, against the release and the definition: the same boxes, every time."""

import host_kernels
import numpy as np
import pytest
import torch
from step_plugins import PluginError, class_nms

from step.ops.class_nms import class_nms as step_class_nms

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("tactic", class_nms.TACTICS)
@pytest.mark.parametrize("iou_threshold", [0.3, 0.4, 0.5, 0.7])
def test_equals_golden(tactic, iou_threshold, golden_ops):
    boxes, scores = golden_ops["nms_boxes"][None], golden_ops["nms_scores"][None, :, None]
    kept = host_kernels.class_nms_kept(boxes, scores, score_threshold=0, iou_threshold=iou_threshold, tactic=tactic)
    expected = np.zeros_like(scores)
    keep = golden_ops[f"nms_keep_{iou_threshold}"]
    expected[0, keep] = scores[0, keep]
    np.testing.assert_array_equal(kept, expected)
    found = class_nms.reference(boxes, scores, score_threshold=0, iou_threshold=iou_threshold)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("num_boxes", "clips", "classes", "tactic"),
    [
        (1, 20, 40, 1),
        (2, 30, 40, 2),
        (31, 40, 40, 3),
        (32, 40, 40, 1),
        (33, 40, 40, 2),
        (34, 50, 60, 1),
        (65, 20, 40, 2),
        (200, 5, 40, 3),
        (1024, 1, 12, 3),
    ],
)
def test_keeps_what_the_reference_keeps(num_boxes, clips, classes, tactic):
    """There are 10,812 cases: crowded and sparse boxes, scores of few values, so that many are equal."""
    state = np.random.RandomState(num_boxes)
    boxes = _boxes(state, clips, num_boxes)
    scores = _scores(state, (clips, num_boxes, classes))
    kept = host_kernels.class_nms_kept(boxes, scores, score_threshold=0.01, iou_threshold=0.4, tactic=tactic)
    expected = class_nms.reference(boxes, scores, score_threshold=0.01, iou_threshold=0.4)
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("num_boxes", [1, 34, 70])
def test_keeps_what_the_matrix_products_keep(num_boxes):
    """`step.ops.class_nms`, which the graphs' function bodies follow."""
    state = np.random.RandomState(num_boxes)
    boxes, scores = _boxes(state, 4, num_boxes), _scores(state, (4, num_boxes, 30))
    boxes[0, 0, 1] = NAN
    boxes[1, 0] = (0, 0, INF, INF)
    found = step_class_nms(torch.from_numpy(boxes), torch.from_numpy(scores), score_threshold=0.01, iou_threshold=0.4)
    kept = host_kernels.class_nms_kept(boxes, scores, score_threshold=0.01, iou_threshold=0.4)
    np.testing.assert_array_equal(kept, found.numpy())
    np.testing.assert_array_equal(class_nms.reference(boxes, scores, score_threshold=0.01, iou_threshold=0.4), kept)


@pytest.mark.parametrize("num_boxes", [1, 34, 1024])
def test_all_scores_equal(num_boxes):
    """Ties go to the lower index; of boxes that are all the same only the first stays."""
    boxes = np.tile(np.array([10, 10, 50, 60], np.float32), (1, num_boxes, 1))
    scores = np.full((1, num_boxes, 2), 0.5, np.float32)
    kept = host_kernels.class_nms_kept(boxes, scores, score_threshold=0.01, iou_threshold=0.4)
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [0, 0, 1]]
    boxes[0, :, 0] += 1000 * np.arange(num_boxes)
    boxes[0, :, 2] += 1000 * np.arange(num_boxes)
    kept = host_kernels.class_nms_kept(boxes, scores, score_threshold=0.01, iou_threshold=0.4)
    np.testing.assert_array_equal(kept, scores)


@pytest.mark.parametrize("between", [0, 5, 31, 40])
def test_an_overlap_of_exactly_the_threshold_suppresses(between):
    """10 x 10 and 10 x 5 pixels within: IoU 1/2. Boxes between them in rank put them in different words of bits."""
    far = [[1000 * (i + 1), 0, 1000 * (i + 1) + 9, 9] for i in range(between)]
    boxes = np.array([[0, 0, 9, 9], *far, [0, 0, 9, 4]], np.float32)[None]
    scores = np.linspace(0.9, 0.5, between + 2, dtype=np.float32)[None, :, None]
    for iou_threshold, kept in ((0.5, between + 1), (np.nextafter(np.float32(0.5), np.float32(1)), between + 2)):
        found = host_kernels.class_nms_kept(boxes, scores, score_threshold=0.01, iou_threshold=float(iou_threshold))
        assert np.count_nonzero(found) == kept


def test_nothing_to_keep():
    boxes = np.tile(np.array([10, 10, 50, 60], np.float32), (2, 40, 1))
    scores = np.full((2, 40, 3), 0.01, np.float32)  # at the threshold, not above it
    assert not host_kernels.class_nms_kept(boxes, scores, score_threshold=0.01, iou_threshold=0.4).any()


def test_scores_that_are_no_numbers():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [50, 50, 60, 60]], np.float32)[None]
    scores = np.array([NAN, INF, 0.9, 0.3], np.float32)[None, :, None]
    kept = host_kernels.class_nms_kept(boxes, scores, score_threshold=0.01, iou_threshold=0.4)
    assert kept[0, :, 0].tolist() == [0, INF, 0, pytest.approx(0.3)]
    np.testing.assert_array_equal(class_nms.reference(boxes, scores, score_threshold=0.01, iou_threshold=0.4), kept)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("corner", range(4))
def test_boxes_that_are_not_finite(bad, corner):
    state = np.random.RandomState(3)
    boxes, scores = _boxes(state, 1, 40), _scores(state, (1, 40, 8))
    boxes[0, ::5, corner] = bad
    kept = host_kernels.class_nms_kept(boxes, scores, score_threshold=0.01, iou_threshold=0.4)
    np.testing.assert_array_equal(kept, class_nms.reference(boxes, scores, score_threshold=0.01, iou_threshold=0.4))
    found = step_class_nms(torch.from_numpy(boxes), torch.from_numpy(scores), score_threshold=0.01, iou_threshold=0.4)
    np.testing.assert_array_equal(kept, found.numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_boxes": 1025}, "step::ClassNms: there are 1025 boxes a clip; up to 1024 are supported"),
        ({"score_threshold": -0.1}, "score_threshold is -0.1; it must be a float32 number of at least 0"),
        ({"score_threshold": 1e300}, "score_threshold is 1e.300"),
        ({"iou_threshold": 1e-50}, "iou_threshold is 1e-50; it must be above 0"),
        ({"score_threshold": NAN}, "score_threshold is nan"),
        ({"iou_threshold": 0.0}, "iou_threshold is 0.0; it must be above 0 and at most 1"),
        ({"tactic": 9}, "there is no tactic 9"),
    ],
)
def test_values_beyond_the_kernel(changes, message):
    values = {"max_boxes": 34, "score_threshold": 0.01, "iou_threshold": 0.4, "tactic": 1, **changes}
    with pytest.raises(PluginError, match=message):
        class_nms.kernel(**values)


def test_traffic_is_the_least():
    traffic = class_nms.traffic_bytes(batch=1, boxes=34, classes=60)
    assert traffic["kernel"] <= 1.5 * traffic["least"]
    for name, count in traffic.items():
        row = next(line for line in class_nms.__doc__.splitlines() if line.startswith(f"    {name} "))
        assert f"  {count / 1e6:.3g} MB  " in row


def _boxes(state, clips, count):
    low = state.uniform(0, 300, (clips, count, 2))
    size = state.choice([5, 60, 200], (clips, count, 1)) * state.uniform(0.5, 1, (clips, count, 2))
    return np.round(np.concatenate((low, low + size), -1)).astype(np.float32)


def _scores(state, shape):
    return (state.randint(0, 12, shape) / 10).astype(np.float32)
