"""`step::ClassNms`: class-wise greedy NMS; its NumPy reference and the variants of its kernel.

Shape legend: B clips, N boxes, K classes.

One block settles one class of one clip; the boxes are read by every block, from the L2 cache but for the first time.

Memory traffic of one call by `traffic_bytes` at the release's size (B 1, N 34, K 60), and the time that it takes at the
memory's full speed: calculated, not measured. Launches come on top: one, against the body's N - 1 products.

    bytes                       A10 600 GB/s   L4 300 GB/s   RTX 4090 1008 GB/s   H100 3350 GB/s
    kernel          0.0169 MB        0.028 us      0.056 us             0.017 us        0.005 us
    function body     10.5 MB           18 us         35 us                10 us             3 us
    least           0.0169 MB        0.028 us      0.056 us             0.017 us        0.005 us

Source: SPEC.md, "Detections of a step".
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from step_plugins.kernel import Kernel, ceil_div, float_literal, require

NAME = "ClassNms"
SOURCE = "class_nms.cu"
ENTRY = "step_class_nms"
MAX_BOXES = 1024
TACTICS = {1: 64, 2: 128, 3: 256}
"""Threads of a block, by TensorRT's tactic number."""


def check_limits(*, boxes: int, score_threshold: float, iou_threshold: float) -> None:
    """Refuses what the kernel is not made for.

    Args:
        boxes: N.
        score_threshold, iou_threshold: see `reference`.

    Raises:
        PluginError: which value, and what is allowed.
    """
    require(0 <= boxes <= MAX_BOXES, f"step::{NAME}: there are {boxes} boxes a clip; up to {MAX_BOXES} are supported")
    require(
        0 <= score_threshold <= float(np.finfo(np.float32).max),
        f"step::{NAME}: score_threshold is {score_threshold}; it must be a float32 number of at least 0",
    )
    require(
        float(np.finfo(np.float32).tiny) <= iou_threshold <= 1,
        f"step::{NAME}: iou_threshold is {iou_threshold}; it must be above 0 and at most 1",
    )


def kernel(*, max_boxes: int, score_threshold: float, iou_threshold: float, tactic: int) -> Kernel:
    """Makes one variant.

    Args:
        max_boxes: at least N.
        score_threshold: see `reference`.
        iou_threshold: see `reference`.
        tactic: one of `TACTICS`.

    Raises:
        PluginError: see `check_limits`.
    """
    check_limits(boxes=max_boxes, score_threshold=score_threshold, iou_threshold=iou_threshold)
    require(tactic in TACTICS, f"step::{NAME}: there is no tactic {tactic}; there are {sorted(TACTICS)}")
    return Kernel(
        source=SOURCE,
        entry=ENTRY,
        defines={
            "THREADS": str(TACTICS[tactic]),
            "MAX_BOXES": str(32 * ceil_div(max(max_boxes, 1), 32)),
            "SCORE_THRESHOLD": float_literal(np.float32(score_threshold)),
            "IOU_THRESHOLD": float_literal(np.float32(iou_threshold)),
        },
        threads=TACTICS[tactic],
    )


def grid(*, batch: Any, classes: Any) -> tuple[Any, Any, Any]:
    """Counts blocks along x, y, z; the sizes may be numbers or TensorRT's symbolic ones."""
    return classes, batch, 1


def arguments(*, boxes: Any, classes: Any) -> tuple[Any, ...]:
    """Returns the int32 arguments of the kernel, which stand between its inputs and its output."""
    return boxes, classes


def reference(
    boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], *, score_threshold: float, iou_threshold: float
) -> NDArray[np.float32]:
    """Runs the operator in NumPy, as it is defined: the best box left is kept and strikes out what it overlaps.

    Args:
        boxes_xyxy: [B, N, 4] px.
        scores: [B, N, K].
        score_threshold: only scores above it take part; at least 0. NaN never does.
        iou_threshold: a box is suppressed where its IoU ("+1" sides) with a kept, higher-scored box is at least this;
            of equal scores the lower index wins. A box with a NaN coordinate overlaps none.

    Returns:
        [B, N, K] the score where the box is kept, else 0.
    """
    kept_scores = np.zeros_like(scores)
    for clip in range(len(boxes_xyxy)):
        overlaps = _pairwise_iou(boxes_xyxy[clip]) >= np.float32(iou_threshold)
        for label in range(scores.shape[2]):
            column = scores[clip, :, label]
            order = np.argsort(-column, kind="stable")  # NaN last
            left = column > np.float32(score_threshold)
            for box in order:
                if left[box]:
                    kept_scores[clip, box, label] = column[box]
                    left &= ~overlaps[box]
                    left[box] = False
    return kept_scores


def _pairwise_iou(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps boxes [N, 4] to overlaps [N, N]."""
    one, zero = np.float32(1), np.float32(0)
    with np.errstate(all="ignore"):  # boxes that are not finite, or have no area, are allowed
        x1, y1, x2, y2 = boxes_xyxy.T
        area = (x2 - x1 + one) * (y2 - y1 + one)
        width = np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1) + one
        height = np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1) + one
        inter = np.maximum(width, zero) * np.maximum(height, zero)
        iou: NDArray[np.float32] = inter / (area[:, None] + area - inter)
    return iou


def traffic_bytes(*, batch: int, boxes: int, classes: int) -> dict[str, float]:
    """Calculates the bytes between device memory and L2 cache in one call.

    A block reads and writes one column of [N, K]; the blocks of its neighbours, which run beside it, use the rest of
    each 32-byte sector while the L2 cache holds it (8 kB a clip in STEP).

    Returns:
        For "kernel", "function body" (N - 1 products of [1, N] with [N, N] per class, each reading the matrix that says
        who suppresses whom), "least".
    """
    box_bytes, score_bytes = batch * boxes * 4 * 4, batch * boxes * classes * 4
    matrix = batch * classes * boxes**2 * 4
    rows = (boxes - 1) * 3 * score_bytes  # in, out, and the row it is taken from
    return {
        "kernel": box_bytes + 2 * score_bytes,
        # the matrix is compared, combined and cast (bytes of bool: a quarter), then read by every product
        "function body": box_bytes + 2 * score_bytes + matrix * (1 + 4 / 4) + (boxes - 1) * matrix + rows,
        "least": box_bytes + 2 * score_bytes,
    }
