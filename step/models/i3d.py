"""I3D: Inception-v1 inflated to three dimensions.

Shape legend: B clips, F input frames, T feature frames, C channels, H x W space.
Source: SPEC.md, "Backbone"; Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, figure 3.
Module names are those of the original TensorFlow graph, so that Kinetics weights load by name.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Triple = tuple[int, int, int]
Branches = tuple[int, int, int, int, int, int]

NORM_EPS = 1e-5

# Output channels of each mixed block: 1x1 | 1x1, 3x3 | 1x1, 3x3 | pool, 1x1
MIXED_3B: Branches = (64, 96, 128, 16, 32, 32)
MIXED_3C: Branches = (128, 128, 192, 32, 96, 64)
MIXED_4B: Branches = (192, 96, 208, 16, 48, 64)
MIXED_4C: Branches = (160, 112, 224, 24, 64, 64)
MIXED_4D: Branches = (128, 128, 256, 24, 64, 64)
MIXED_4E: Branches = (112, 144, 288, 32, 64, 64)
MIXED_4F: Branches = (256, 160, 320, 32, 128, 128)
MIXED_5B: Branches = (256, 160, 320, 32, 128, 128)
MIXED_5C: Branches = (384, 192, 384, 48, 128, 128)


def same_padding(kernel: Triple, stride: Triple) -> tuple[int, int, int, int, int, int]:
    """Returns TensorFlow's "SAME" padding from kernel and stride alone, in `F.pad` order (last dimension first)."""
    pads: list[int] = []
    for size, step in zip(reversed(kernel), reversed(stride), strict=True):
        total = max(size - step, 0)
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3], pads[4], pads[5]


def max_pool_same(x: Tensor, *, kernel: Triple, stride: Triple, own_only: bool = False) -> Tensor:
    """Max-pools [B, C, T, H, W] with zero "SAME" padding; the last window is kept when it is partial.

    `own_only` has PyTorch's own pool do it on a CPU too, as in the authors' code.
    """
    pads = same_padding(kernel, stride)
    if pads[0::2] == pads[1::2]:
        # Pools follow a ReLU, so padding with zeros and the pool's own padding with -inf give the same maxima.
        return _max_pool(x, kernel, stride, (pads[4], pads[2], pads[0]), own_only)
    return _max_pool(F.pad(x, pads), kernel, stride, (0, 0, 0), own_only)


def _max_pool(x: Tensor, kernel: Triple, stride: Triple, padding: Triple, own_only: bool) -> Tensor:
    """Calls max_pool3d so that last, partial windows count."""
    is_plain = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    if is_plain and not own_only and torch.backends.mkldnn.enabled and not torch.compiler.is_compiling():
        # oneDNN's pool: the same maxima in a tenth of the time that PyTorch's own takes on a CPU.
        return torch.mkldnn_max_pool3d(x.to_mkldnn(), kernel, stride, padding, (1, 1, 1), True).to_dense()
    return F.max_pool3d(x, kernel, stride, padding=padding, ceil_mode=True)


class ConvUnit(nn.Module):
    """Chains conv3d without bias, BatchNorm and ReLU, with "SAME" padding."""

    def __init__(self, *, in_channels: int, out_channels: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        pads = same_padding(kernel, stride)
        symmetric = pads[0::2] == pads[1::2]
        self.pads = None if symmetric else pads
        padding = pads[4::-2] if symmetric else 0
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, padding=padding, bias=False)
        self.batch3d: nn.Module = nn.BatchNorm3d(out_channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        if self.pads is not None:
            x = F.pad(x, self.pads)
        return F.relu(self.batch3d(self.conv3d(x)), inplace=True)


class MaxPoolSame(nn.Module):
    """Makes `max_pool_same` a layer, with its `own_only` as an attribute."""

    def __init__(self, *, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.own_only = False

    def forward(self, x: Tensor) -> Tensor:
        return max_pool_same(x, kernel=self.kernel, stride=self.stride, own_only=self.own_only)


class Mixed(nn.Module):
    """Is an Inception block: four parallel branches, concatenated over channels."""

    def __init__(self, *, in_channels: int, branches: Branches) -> None:
        super().__init__()
        a, b1, b2, c1, c2, d = branches
        one, three = (1, 1, 1), (3, 3, 3)
        self.branch_0 = ConvUnit(in_channels=in_channels, out_channels=a, kernel=one)
        self.branch_1 = nn.Sequential(
            ConvUnit(in_channels=in_channels, out_channels=b1, kernel=one),
            ConvUnit(in_channels=b1, out_channels=b2, kernel=three),
        )
        self.branch_2 = nn.Sequential(
            ConvUnit(in_channels=in_channels, out_channels=c1, kernel=one),
            ConvUnit(in_channels=c1, out_channels=c2, kernel=three),
        )
        self.branch_3 = nn.Sequential(
            MaxPoolSame(kernel=three, stride=one),
            ConvUnit(in_channels=in_channels, out_channels=d, kernel=one),
        )
        self.out_channels = a + b2 + c2 + d

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)), dim=1)


def mixed_chain(in_channels: int, names: dict[str, Branches], channels: Callable[[int], int]) -> dict[str, Mixed]:
    """Makes mixed blocks in a row, by name, each at the width that `channels` gives."""
    blocks: dict[str, Mixed] = {}
    for name, branches in names.items():
        a, b1, b2, c1, c2, d = (channels(count) for count in branches)
        blocks[name] = Mixed(in_channels=in_channels, branches=(a, b1, b2, c1, c2, d))
        in_channels = blocks[name].out_channels
    return blocks


class I3DBackbone(nn.Module):
    """Has the layers up to mixed 4f: space / 16, time / 4, 832 channels at full width.

    Args:
        channels: maps a full-width channel count to this model's.

    Attributes:
        checkpointing: whether activations are computed again for the gradient instead of being kept.
    """

    def __init__(self, *, channels: Callable[[int], int]) -> None:
        super().__init__()
        self.checkpointing = False
        stem, reduced = channels(64), channels(192)
        self.conv3d_1a_7x7 = ConvUnit(in_channels=3, out_channels=stem, kernel=(7, 7, 7), stride=(2, 2, 2))
        self.max_pool_2a_3x3 = MaxPoolSame(kernel=(1, 3, 3), stride=(1, 2, 2))
        self.conv3d_2b_1x1 = ConvUnit(in_channels=stem, out_channels=stem, kernel=(1, 1, 1))
        self.conv3d_2c_3x3 = ConvUnit(in_channels=stem, out_channels=reduced, kernel=(3, 3, 3))
        self.max_pool_3a_3x3 = MaxPoolSame(kernel=(1, 3, 3), stride=(1, 2, 2))
        third = mixed_chain(reduced, {"mixed_3b": MIXED_3B, "mixed_3c": MIXED_3C}, channels)
        fourth = mixed_chain(
            third["mixed_3c"].out_channels,
            {
                "mixed_4b": MIXED_4B,
                "mixed_4c": MIXED_4C,
                "mixed_4d": MIXED_4D,
                "mixed_4e": MIXED_4E,
                "mixed_4f": MIXED_4F,
            },
            channels,
        )
        for name, block in third.items():
            self.add_module(name, block)
        self.max_pool_4a_3x3 = MaxPoolSame(kernel=(3, 3, 3), stride=(2, 2, 2))
        for name, block in fourth.items():
            self.add_module(name, block)
        self.out_channels = fourth["mixed_4f"].out_channels

    def forward(self, clips: Tensor) -> Tensor:
        """Maps [B, 3, F, H, W] in [-1, 1] to [B, C, F/4, H/16, W/16]."""
        x = clips
        for layer in self.children():  # registered in the order in which they run
            keeps = not (self.checkpointing and torch.is_grad_enabled())
            x = layer(x) if keeps else checkpoint(layer, x, use_reentrant=False)
        return x


class I3DClassifier(nn.Module):
    """Is the whole I3D network with its logits layer, to check Kinetics weights.

    Args:
        num_classes: 400 for Kinetics-400.
    """

    def __init__(self, *, num_classes: int = 400) -> None:
        super().__init__()
        self.backbone = I3DBackbone(channels=lambda count: count)
        self.max_pool_5a_2x2 = MaxPoolSame(kernel=(2, 2, 2), stride=(2, 2, 2))
        top = mixed_chain(self.backbone.out_channels, {"mixed_5b": MIXED_5B, "mixed_5c": MIXED_5C}, lambda count: count)
        self.mixed_5b, self.mixed_5c = top["mixed_5b"], top["mixed_5c"]
        self.logits = nn.Conv3d(self.mixed_5c.out_channels, num_classes, 1)

    def forward(self, clips: Tensor) -> Tensor:
        """Maps [B, 3, F, 224, 224] in [-1, 1], F at least 16, to logits [B, num_classes], averaged over time."""
        x = self.max_pool_5a_2x2(self.backbone(clips))
        x = F.avg_pool3d(self.mixed_5c(self.mixed_5b(x)), (2, 7, 7), stride=1)
        logits: Tensor = self.logits(x)
        return logits.mean(dim=(2, 3, 4))


def release_layer_names() -> dict[int, str]:
    """Maps the index of a layer in the release's `base_model` to its name here."""
    names = [name for name, _ in I3DBackbone(channels=lambda _count: 1).named_children()]
    return dict(zip(itertools.count(), names, strict=False))
