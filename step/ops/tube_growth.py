"""How a tube grows by one chunk at each end before a step that looks at more frames.

Shape legend: B clips, N tubes, T feature frames of a chunk, T' feature frames of the tube. Boxes are px.
Source: SPEC.md, "Tubes"; paper section 3.3 (temporal modelling).
"""

import torch
from torch import Tensor

from step.config import TemporalMode


def grow_tubes(
    tubes_px: Tensor,
    first_px: Tensor,
    last_px: Tensor,
    *,
    temporal_mode: TemporalMode,
    chunk_frames: int,
    image_size_px: int,
) -> Tensor:
    """Adds one chunk before and one after each tube.

    Args:
        tubes_px: [B, N, T', 4] a step's decoded boxes.
        first_px: [B, N, T, 4] boxes that the step predicts for the chunk before (used by "predict").
        last_px: [B, N, T, 4] likewise for the chunk after.
        temporal_mode: "predict", "extrapolate" or "mean".
        chunk_frames: T.
        image_size_px: the bound that "extrapolate" clips to.

    Returns:
        [B, N, T' + 2 T, 4].
    """
    if temporal_mode == "predict":
        return torch.cat((first_px, tubes_px, last_px), dim=-2)
    if temporal_mode == "extrapolate":
        return extrapolate_tubes(tubes_px, chunk_frames=chunk_frames, image_size_px=image_size_px)
    mean = tubes_px.mean(dim=-2, keepdim=True)
    side = mean.expand(*tubes_px.shape[:-2], chunk_frames, 4)
    return torch.cat((side, tubes_px, side), dim=-2)


def extrapolate_tubes(tubes_px: Tensor, *, chunk_frames: int, image_size_px: int) -> Tensor:
    """Continues each tube linearly, frame by frame outwards, by T frames at each end.

    The slope is that of the T frames next to the new one, whose ends may themselves be extrapolated.

    Returns:
        [..., T' + 2 T, 4], with x1, y1 at least 0 and x2, y2 at most image_size_px - 1: the release clips each
        corner on its own side only, and leaves the rest to the validity rule (golden array `extrapolated_T3`).
    """
    span = chunk_frames
    near, far = span / (span - 1), 1 / (span - 1)
    frames = list(tubes_px.unbind(-2))
    for _ in range(span):
        frames.insert(0, near * frames[0] - far * frames[span - 1])
        frames.append(near * frames[-1] - far * frames[-span])
    low_xy, high_xy = torch.stack(frames, dim=-2).chunk(2, dim=-1)
    return torch.cat((low_xy.clamp(min=0), high_xy.clamp(max=image_size_px - 1)), dim=-1)
