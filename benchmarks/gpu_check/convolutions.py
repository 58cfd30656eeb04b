"""The backbone's 3D convolutions, one by one: their shapes, arithmetic, bytes, and the calls that time them.

Shape legend: B clips, C channels, T frames, H x W space.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from step.models.i3d import I3DBackbone


@dataclass(frozen=True)
class Convolution:
    """Describes one shape of the backbone.

    Attributes:
        input_shape: [B, C, T, H, W], padding that the layer's own cannot do included.
        weight_shape: [out, C, t, h, w].
        stride, padding: along T, H, W.
        count: layers of this shape.
        output_values: of one layer's output.
    """

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    count: int
    output_values: int

    @property
    def name(self) -> str:
        """Names it in short: channels, kernel, and what it slides over."""
        out, into, *kernel = self.weight_shape
        return f"{into} -> {out}, {'x'.join(map(str, kernel))} on {'x'.join(map(str, self.input_shape[2:]))}"

    @property
    def multiply_adds(self) -> int:
        """Counts the multiply-adds of one layer."""
        out, *rest = self.weight_shape
        del out
        return self.output_values * int(torch.Size(rest).numel())

    @property
    def values(self) -> int:
        """Counts what one layer reads and writes at least: input, weights, output."""
        return int(torch.Size(self.input_shape).numel() + torch.Size(self.weight_shape).numel()) + self.output_values


def backbone_convolutions(*, frames: int, image_size_px: int, width: float = 1.0) -> list[Convolution]:
    """Lists every shape of convolution in the backbone, in the order in which it first runs, for one clip.

    Nothing is computed: the backbone runs on PyTorch's `meta` device.
    """
    with torch.device("meta"):
        backbone = I3DBackbone(channels=lambda count: max(1, round(width * count)))
    found: dict[tuple[object, ...], Convolution] = {}

    def see(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Conv3d)
        assert isinstance(module.padding, tuple)
        shape = tuple(inputs[0].shape)
        key = (shape, tuple(module.weight.shape), module.stride, module.padding)
        seen = found[key].count if key in found else 0
        found[key] = Convolution(
            shape, tuple(module.weight.shape), module.stride, module.padding, seen + 1, output.numel()
        )

    for module in backbone.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(see)
    with torch.no_grad():
        backbone.eval()(torch.empty(1, 3, frames, image_size_px, image_size_px, device="meta"))
    return list(found.values())


def convolve(shape: Convolution, *, dtype: torch.dtype, channels_last: bool, device: str) -> Callable[[], Tensor]:
    """Makes a call that does one layer on random values."""
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    features = torch.randn(shape.input_shape, device=device).to(dtype).contiguous(memory_format=layout)
    weight = (torch.randn(shape.weight_shape, device=device) / 10).to(dtype).contiguous(memory_format=layout)
    return lambda: F.conv3d(features, weight, stride=shape.stride, padding=shape.padding)
