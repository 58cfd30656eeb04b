"""Box deltas in the legacy "+1" convention, and the rule for boxes that leave the frame.

Shapes: any leading dimensions; the last one is x1, y1, x2, y2 in pixels, or (dx, dy, dw, dh).
Source: SPEC.md, "Tubes".
"""

import torch
from torch import Tensor

MIN_SIDE_PX = 2.0
"""A clipped box has to be wider and taller than this to count as a box."""


def encode_boxes(targets_xyxy: Tensor, references_xyxy: Tensor) -> Tensor:
    """Returns the deltas [..., 4] that turn `references_xyxy` into `targets_xyxy` (both [..., 4], px)."""
    center_xy, size_wh = _center_size(references_xyxy)
    target_xy, target_wh = _center_size(targets_xyxy)
    return torch.cat(((target_xy - center_xy) / size_wh, torch.log(target_wh / size_wh)), dim=-1)


def decode_boxes(deltas: Tensor, references_xyxy: Tensor) -> Tensor:
    """Returns the boxes [..., 4] (px) that `deltas` [..., 4] make of `references_xyxy` [..., 4] (px)."""
    center_xy, size_wh = _center_size(references_xyxy)
    center_xy = deltas[..., :2] * size_wh + center_xy
    half_wh = 0.5 * (torch.exp(deltas[..., 2:]) * size_wh)
    return torch.cat((center_xy - half_wh, center_xy + half_wh - 1), dim=-1)


def make_boxes_valid(boxes_xyxy: Tensor, image_size_px: int) -> Tensor:
    """Clips boxes [..., 4] to [0, image_size_px]; one not wider and taller than 2 px becomes the whole frame."""
    clipped = boxes_xyxy.clamp(0, image_size_px)
    low_xy, high_xy = clipped[..., :2], clipped[..., 2:]
    sides_wh = high_xy - low_xy
    # A NaN compares false, so it too becomes the whole frame and cannot travel to the next step.
    is_none = ~((sides_wh[..., :1] > MIN_SIDE_PX) & (sides_wh[..., 1:] > MIN_SIDE_PX))
    return torch.cat((low_xy.masked_fill(is_none, 0), high_xy.masked_fill(is_none, image_size_px)), dim=-1)


def _center_size(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    low_xy, high_xy = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    size_wh = high_xy - low_xy + 1
    return low_xy + 0.5 * size_wh, size_wh
