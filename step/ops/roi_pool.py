"""RoI max-pool of tubes, the release's alternative to RoI align.

Shape legend: B clips, N tubes, T feature frames, C channels, H x W feature cells, P bins a side.
Source: SPEC.md, "RoI align" (`pool_mode`); Girshick, "Fast R-CNN", section 2.1; `torchvision.ops.roi_pool`.
"""

import torch
from torch import Tensor

from step.config import FEATURE_STRIDE


def tube_roi_pool(features: Tensor, tubes_px: Tensor, *, pool_size: int) -> Tensor:
    """Returns the largest feature in each bin of each tube's box in each frame; 0 where a bin is empty.

    Args:
        features: [B, T, C, H, W].
        tubes_px: [B, N, T, 4] x1, y1, x2, y2 in input pixels.
        pool_size: P.

    Returns:
        [B, N, C, T, P, P] of the features' dtype.
    """
    height, width = features.shape[-2:]
    x1, y1, x2, y2 = tubes_px.unbind(-1)
    in_x = _bin_members(x1, x2, cells=width, pool_size=pool_size)
    in_y = _bin_members(y1, y2, cells=height, pool_size=pool_size)
    lowest = torch.finfo(features.dtype).min
    # [B, T, C, H, W] -> [B, 1, C, T, H, W]; one bin row (then column) at a time bounds the memory to one copy a tube
    frames_last = features.permute(0, 2, 1, 3, 4).unsqueeze(1)
    rows = [torch.where(in_y[:, :, None, :, row, :, None], frames_last, lowest).amax(-2) for row in range(pool_size)]
    by_row = torch.stack(rows, dim=-2)  # [B, N, C, T, P, W]
    columns = [
        torch.where(in_x[:, :, None, :, None, column, :], by_row, lowest).amax(-1) for column in range(pool_size)
    ]
    pooled = torch.stack(columns, dim=-1)  # [B, N, C, T, P, P]
    # [B, N, T, P] x [B, N, T, P] -> [B, N, 1, T, P, P]
    filled = in_y.any(-1)[:, :, None, :, :, None] & in_x.any(-1)[:, :, None, :, None, :]
    return torch.where(filled, pooled, 0)


def _bin_members(low_px: Tensor, high_px: Tensor, *, cells: int, pool_size: int) -> Tensor:
    """Says which cells belong to which bin along one axis: [..., P, cells] bool."""
    start = _round_half_away(low_px / FEATURE_STRIDE)
    end = _round_half_away(high_px / FEATURE_STRIDE)
    bin_size = (end - start + 1).clamp(min=1) / pool_size
    bins = torch.arange(pool_size, dtype=start.dtype, device=start.device)
    first = (bins * bin_size[..., None]).floor() + start[..., None]
    past = ((bins + 1) * bin_size[..., None]).ceil() + start[..., None]
    cell = torch.arange(cells, dtype=start.dtype, device=start.device)
    return (cell >= first[..., None]) & (cell < past[..., None])


def _round_half_away(value: Tensor) -> Tensor:
    """Rounds as C's round() does: halves go away from zero, where torch.round takes the even neighbour."""
    return torch.trunc(value + 0.5 * torch.sign(value))
