"""One progressive step's two-branch head: action scores and box deltas of tubes.

Shape legend: M tubes of all clips (B N), T' feature frames of a tube, T feature frames of a chunk, C channels, P bins.
Source: SPEC.md, "One progressive step's head"; paper section 3.2.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from step.models.i3d import MIXED_5B, MIXED_5C, mixed_chain

DROPOUT = 0.3


class HeadOutput(NamedTuple):
    """Holds the raw predictions of a head.

    logits [M, K]; deltas [M, T', 4]; first_deltas and last_deltas [M, T, 4], for the chunk before and after the tube.
    """

    logits: Tensor
    deltas: Tensor
    first_deltas: Tensor
    last_deltas: Tensor


class WideningBlock(nn.Module):
    """Is a residual block whose shortcut is a 1x1 convolution; it has neither norm nor bias."""

    def __init__(self, *, in_channels: int, out_channels: int, inner_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.conv2 = nn.Conv2d(in_channels, inner_channels, 1, bias=False)
        self.conv3 = nn.Conv2d(inner_channels, inner_channels, 3, padding=1, bias=False)
        self.conv4 = nn.Conv2d(inner_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.conv3(F.relu(self.conv2(x))))
        return F.relu(self.conv1(x) + self.conv4(inner))


class BottleneckBlock(nn.Module):
    """Is a residual block with an identity shortcut; it has neither norm nor bias."""

    def __init__(self, *, channels: int, inner_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.conv2 = nn.Conv2d(inner_channels, inner_channels, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(inner_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(x + self.conv3(inner))


class TwoBranchHead(nn.Module):
    """Has a global branch (3D, action scores) and a local branch (per frame, box deltas).

    Args:
        in_channels: channels of the pooled features.
        context_channels: channels of the context vector; 0 for a model without context.
        num_classes: K.
        pool_size: P.
        fc_dim: channels after the 1x1 reductions.
        chunk_frames: T.
        channels: maps a full-width channel count to this model's.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        context_channels: int,
        num_classes: int,
        pool_size: int,
        fc_dim: int,
        chunk_frames: int,
        channels: Callable[[int], int],
    ) -> None:
        super().__init__()
        self.chunk_frames = chunk_frames
        blocks = mixed_chain(in_channels, {"mixed_5b": MIXED_5B, "mixed_5c": MIXED_5C}, channels)
        self.mixed_5b, self.mixed_5c = blocks["mixed_5b"], blocks["mixed_5c"]
        flat = fc_dim * pool_size * pool_size
        wide, inner = channels(1024), channels(256)
        self.downsample = nn.Conv3d(self.mixed_5c.out_channels, fc_dim, 1)
        self.global_cls = nn.Linear(flat + context_channels, num_classes)
        self.local_conv = nn.Sequential(
            WideningBlock(in_channels=in_channels + fc_dim, out_channels=wide, inner_channels=inner),
            BottleneckBlock(channels=wide, inner_channels=inner),
            BottleneckBlock(channels=wide, inner_channels=inner),
        )
        self.downsample2 = nn.Conv2d(wide, fc_dim, 1)
        self.local_reg = nn.Linear(flat, 4)
        self.neighbor_reg1 = nn.Linear(flat, 4)
        self.neighbor_reg2 = nn.Linear(flat, 4)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, pooled: Tensor, context: Tensor | None) -> HeadOutput:
        """Returns scores and deltas of every tube.

        Args:
            pooled: [M, C, T', P, P] pooled features.
            context: [M, 1024, T'] the clip's context at the same frames, or None for a model without context.
        """
        frames = pooled.shape[2]
        reduced = self.downsample(self.mixed_5c(self.mixed_5b(pooled)))  # [M, fc, T', P, P]
        # [M, fc, T', P, P] -> [M, T', fc P P]: the order in a frame is (channel, y, x)
        per_frame = reduced.transpose(1, 2).flatten(2)
        if context is not None:
            per_frame = torch.cat((per_frame, context.transpose(1, 2)), dim=2)
        logits = self.global_cls(self.dropout(per_frame)).mean(dim=1)

        # [M, C + fc, T', P, P] -> [M T', C + fc, P, P]: the local branch sees frames one by one
        local = torch.cat((pooled, reduced), dim=1).transpose(1, 2).flatten(0, 1)
        local = self.downsample2(self.local_conv(local))
        # [M T', fc, P, P] -> [M, T', fc P P]
        local = self.dropout(local.flatten(1).unflatten(0, (-1, frames)))
        deltas = self.local_reg(local)
        first, last = local[:, : self.chunk_frames], local[:, -self.chunk_frames :]
        return HeadOutput(
            logits=logits,
            deltas=deltas,
            first_deltas=deltas[:, : self.chunk_frames] + self.neighbor_reg1(first),
            last_deltas=deltas[:, -self.chunk_frames :] + self.neighbor_reg2(last),
        )
