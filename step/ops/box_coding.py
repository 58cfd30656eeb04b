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
    x, y, width, height = _center_size(references_xyxy)
    target_x, target_y, target_width, target_height = _center_size(targets_xyxy)
    deltas = (
        (target_x - x) / width,
        (target_y - y) / height,
        torch.log(target_width / width),
        torch.log(target_height / height),
    )
    return torch.stack(deltas, dim=-1)


def decode_boxes(deltas: Tensor, references_xyxy: Tensor) -> Tensor:
    """Returns the boxes [..., 4] (px) that `deltas` [..., 4] make of `references_xyxy` [..., 4] (px)."""
    x, y, width, height = _center_size(references_xyxy)
    dx, dy, dw, dh = deltas.unbind(-1)
    center_x = dx * width + x
    center_y = dy * height + y
    half_width = 0.5 * (torch.exp(dw) * width)
    half_height = 0.5 * (torch.exp(dh) * height)
    corners = (
        center_x - half_width,
        center_y - half_height,
        center_x + half_width - 1,
        center_y + half_height - 1,
    )
    return torch.stack(corners, dim=-1)


def make_boxes_valid(boxes_xyxy: Tensor, image_size_px: int) -> Tensor:
    """Clips boxes [..., 4] to [0, image_size_px]; one not wider and taller than 2 px becomes the whole frame."""
    clipped = boxes_xyxy.clamp(0, image_size_px)
    x1, y1, x2, y2 = clipped.unbind(-1)
    is_box = (x2 - x1 > MIN_SIDE_PX) & (y2 - y1 > MIN_SIDE_PX)
    zero = torch.zeros_like(x1)
    full = torch.full_like(x1, image_size_px)
    # A NaN compares false, so it too becomes the whole frame and cannot travel to the next step.
    return torch.where(is_box.unsqueeze(-1), clipped, torch.stack((zero, zero, full, full), dim=-1))


def _center_size(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    width = x2 - x1 + 1
    height = y2 - y1 + 1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
