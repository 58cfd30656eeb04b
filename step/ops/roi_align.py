"""RoI align of tubes as two matrix products.

Shape legend: B clips, N tubes, T feature frames, C channels, H x W feature cells, P bins a side.

The 2019 form: no half-pixel offset, RoI sides of at least one cell, ceil(side / P) samples a bin and axis. Bilinear
sampling on an axis-aligned grid is separable, so pooling is Wy @ feature @ Wx^T with Wy [P, H] and Wx [P, W]:
averages of hat functions max(0, 1 - |point - cell|). Exact, and nothing but matrix products.

Source: SPEC.md, "RoI align"; He et al., "Mask R-CNN", section 3; `torchvision.ops.roi_align(aligned=False)`.
"""

import math

import torch
from torch import Tensor

from step.config import FEATURE_STRIDE


def tube_roi_align(features: Tensor, tubes_px: Tensor, *, pool_size: int) -> Tensor:
    """Pools the features of each tube's box in each frame.

    Args:
        features: [B, T, C, H, W], float32 or float16.
        tubes_px: [B, N, T, 4] float32 x1, y1, x2, y2 in input pixels. Boxes may leave the frame, but one larger than
            the frame is sampled with as many points per bin as one of the frame's size (the validity rule, applied
            before every step, makes boxes no larger than the frame). A box with a coordinate that is not finite pools
            zeros.
        pool_size: P.

    Returns:
        [B, N, C, T, P, P] of the features' dtype: the layout that the next convolution reads.

    With gradients wanted, the differentiable matrix form runs; otherwise the operator `step::tube_roi_align`, which
    is what an exported graph contains and what a kernel can be registered for.
    """
    if torch.is_grad_enabled() and features.requires_grad:
        return matrix_roi_align(features, tubes_px, pool_size)
    pooled: Tensor = tube_roi_align_op(features, tubes_px, pool_size)
    return pooled


def axis_weights(low_px: Tensor, high_px: Tensor, *, cells: int, pool_size: int) -> Tensor:
    """Returns how much each feature cell counts in each bin, along one axis.

    Args:
        low_px: [...] start of the RoI in input pixels.
        high_px: [...] its end.
        cells: feature cells along this axis.
        pool_size: P.

    Returns:
        [..., P, cells] float32.
    """
    start = low_px / FEATURE_STRIDE
    size = (high_px / FEATURE_STRIDE - start).clamp(min=1)
    bin_size = size / pool_size
    # A RoI no larger than the map needs at most this many points a bin; fewer are masked, so the shape is static.
    max_points = math.ceil(cells / pool_size)
    num_points = bin_size.ceil().clamp(max=max_points)
    bins = torch.arange(pool_size, dtype=start.dtype, device=start.device)
    points = torch.arange(max_points, dtype=start.dtype, device=start.device)
    cell = torch.arange(cells, dtype=start.dtype, device=start.device)

    # [..., P, 1] + [..., 1, max_points] -> [..., P, max_points]
    bin_start = start[..., None] + bins * bin_size[..., None]
    offset = (points + 0.5) * bin_size[..., None] / num_points[..., None]
    position = bin_start[..., :, None] + offset[..., None, :]
    # A point further than one cell outside the map counts nothing, otherwise it is moved to the map's edge. A position
    # that is not finite compares false; only an end of -inf, whose size is floored, has to be asked for.
    used = (points < num_points[..., None]) & (high_px > -math.inf)[..., None]
    counts = (position >= -1) & (position <= cells) & used[..., None, :]
    share = torch.where(counts, 1 / num_points[..., None, None], 0)
    position = torch.where(counts, position, 0).clamp(0, cells - 1)

    # [..., P, max_points, 1] against [cells] -> [..., P, max_points, cells] -> [..., P, cells]
    hats = (1 - (position[..., None] - cell).abs()).clamp(min=0)
    return (hats * share[..., None]).sum(-2)


def matrix_roi_align(features: Tensor, tubes_px: Tensor, pool_size: int) -> Tensor:
    """Computes `tube_roi_align` in its differentiable form, on any device and in any floating-point type."""
    batch, frames, channels, height, width = features.shape
    num_tubes = tubes_px.shape[1]
    x1, y1, x2, y2 = tubes_px.unbind(-1)
    # [B, N, T, P, W] and [B, N, T, P, H], computed in float32 whatever the features are
    x_weights = axis_weights(x1, x2, cells=width, pool_size=pool_size).to(features.dtype)
    y_weights = axis_weights(y1, y2, cells=height, pool_size=pool_size).to(features.dtype)

    # Rows first: one large product for all tubes, whose result the second product takes as it lies.
    # [B, T, N P, H] @ [B, T, H, C W] -> [B, T, N, P, C, W]
    rows = y_weights.transpose(1, 2).reshape(batch, frames, num_tubes * pool_size, height)
    rows = rows @ features.transpose(2, 3).reshape(batch, frames, height, channels * width)
    rows = rows.reshape(batch, frames, num_tubes, pool_size, channels, width)
    # [B, T, N, P, C, W] @ [B, T, N, 1, W, P] -> [B, T, N, P, C, P] -> [B, N, C, T, P, P]
    pooled = rows @ x_weights.permute(0, 2, 1, 4, 3)[:, :, :, None]
    return pooled.permute(0, 2, 4, 1, 3, 5).contiguous()


@torch.library.custom_op("step::tube_roi_align", mutates_args=())
def tube_roi_align_op(features: Tensor, tubes_px: Tensor, pool_size: int) -> Tensor:
    """Is the operator behind `tube_roi_align`."""
    return matrix_roi_align(features, tubes_px, pool_size)


@tube_roi_align_op.register_fake
def _(features: Tensor, tubes_px: Tensor, pool_size: int) -> Tensor:
    batch, frames, channels = features.shape[:3]
    return features.new_empty(batch, tubes_px.shape[1], channels, frames, pool_size, pool_size)
