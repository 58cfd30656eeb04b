"""The context branch: what the whole frame says about the clip.

Shape legend: B clips, T feature frames, C channels, H x W feature cells.
Source: SPEC.md, "Context branch".
"""

from collections.abc import Callable

from torch import Tensor, nn

from step.models.i3d import MIXED_5B, MIXED_5C, MaxPoolSame, mixed_chain


class ContextBranch(nn.Module):
    """Makes the context: spatial max-pool, mixed 5b and 5c, average over the whole map.

    Args:
        in_channels: channels of the backbone's features.
        channels: maps a full-width channel count to this model's.
    """

    def __init__(self, *, in_channels: int, channels: Callable[[int], int]) -> None:
        super().__init__()
        self.max_pool = MaxPoolSame(kernel=(1, 3, 3), stride=(1, 2, 2))
        blocks = mixed_chain(in_channels, {"mixed_5b": MIXED_5B, "mixed_5c": MIXED_5C}, channels)
        self.mixed_5b, self.mixed_5c = blocks["mixed_5b"], blocks["mixed_5c"]
        self.out_channels = self.mixed_5c.out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Maps [B, C, T, H, W] to [B, 1024, T]."""
        context: Tensor = self.mixed_5c(self.mixed_5b(self.max_pool(features)))
        return context.mean(dim=(3, 4))
