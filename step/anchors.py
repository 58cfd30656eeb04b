"""The initial boxes of the first progressive step (torch-free).

Source: SPEC.md, "Tubes"; paper section 3.1 (coarse-to-fine grids of initial proposals).
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# (scale, overlap) of each grid: squares of side 1/scale that overlap their neighbours by that share of a side.
# Anchor mode m uses the first m + 1 grids.
_GRIDS = (
    (Fraction(4, 3), Fraction(5, 6)),
    (Fraction(2), Fraction(3, 4)),
    (Fraction(3), Fraction(1, 2)),
    (Fraction(4), Fraction(1, 4)),
    (Fraction(5), Fraction(0)),
)


def anchor_boxes(anchor_mode: int) -> NDArray[np.float32]:
    """Returns the initial boxes of an anchor mode.

    Args:
        anchor_mode: 1, 2, 3 or 4.

    Returns:
        [N, 4] x1, y1, x2, y2 in [0, 1]; N = 34, 59, 84 or 109. Within a grid, y runs fastest.

    Raises:
        ValueError: another anchor mode.
    """
    if anchor_mode not in (1, 2, 3, 4):
        raise ValueError(f"anchor_mode is {anchor_mode}; it must be 1, 2, 3 or 4")
    boxes: list[tuple[float, float, float, float]] = []
    for scale, overlap in _GRIDS[: anchor_mode + 1]:
        side = 1 / scale
        stride = side * (1 - overlap)
        starts = [stride * i for i in range(int((1 - side) / stride) + 1)]
        boxes += [(float(x), float(y), float(x + side), float(y + side)) for x in starts for y in starts]
    return np.array(boxes, np.float32)


def anchor_tubes(anchor_mode: int, *, frames: int, image_size_px: int) -> NDArray[np.float32]:
    """Repeats the anchors over time, in pixels: [N, frames, 4]."""
    boxes_px = anchor_boxes(anchor_mode) * np.float32(image_size_px)
    return np.repeat(boxes_px[:, None], frames, axis=1)
