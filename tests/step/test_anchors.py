import numpy as np
import pytest

from step.anchors import anchor_boxes, anchor_tubes


@pytest.mark.parametrize(("mode", "count"), [(1, 34), (2, 59), (3, 84), (4, 109)])
def test_anchors_are_golden(mode, count, golden_ops):
    boxes = anchor_boxes(mode)
    assert boxes.shape == (count, 4)
    assert np.array_equal(boxes, golden_ops[f"anchor_mode_{mode}"])


def test_tubes_repeat_the_boxes_in_pixels():
    tubes = anchor_tubes(1, frames=3, image_size_px=400)
    assert tubes.shape == (34, 3, 4)
    assert np.array_equal(tubes[:, 2], anchor_boxes(1) * 400)


def test_unknown_mode():
    with pytest.raises(ValueError, match="anchor_mode is 5"):
        anchor_boxes(5)
