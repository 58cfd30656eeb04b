"""Photometric distortion and erasing of training clips, drawn where a clip is loaded and done where it is trained on.

Shape legend: F frames of a clip, H x W the model's input.
Source: SPEC.md, "Training (detection)", augmentation; torchvision.transforms.v2.

Colours of 36 frames are a core's work for half a second, and nothing to a GPU. Distortion, and cropping, flipping and
resizing, can change places but for rounding and for the mean grey that contrast is measured from.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from step.data.torchvision import F, v2

_ERASED_SHARE = (0.02, 0.2)
_ERASED_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Erased:
    """Describes a rectangle of one colour, uint8 [3, 1, 1], at the same input pixels in every frame."""

    top: int
    left: int
    height: int
    width: int
    colour: Tensor


@dataclass(frozen=True)
class PhotometricChange:
    """Says what is to be done to the colours of a clip.

    Attributes:
        distortion: parameters of v2.RandomPhotometricDistort; None for none.
        erased: rectangles.
    """

    distortion: dict[str, Any] | None = None
    erased: tuple[Erased, ...] = ()


def _distort() -> v2.RandomPhotometricDistort:
    return v2.RandomPhotometricDistort(
        brightness=(1 - 32 / 255, 1 + 32 / 255),
        contrast=(0.5, 1.5),
        saturation=(0.5, 1.5),
        hue=(-18 / 360, 18 / 360),
        p=0.5,
    )


def draw_distortion(frames: Tensor) -> dict[str, Any]:
    """Draws random parameters for frames [F, 3, H, W]."""
    return cast(dict[str, Any], _distort().make_params([frames]))


def draw_erased(boxes_px: Tensor, *, image_size_px: int) -> tuple[Erased, ...]:
    """Draws what hides 2 to 20 % of every person's box [M, 4] behind one random colour."""
    erased = []
    for x1, y1, x2, y2 in boxes_px.tolist():
        share = float(torch.empty(()).uniform_(*_ERASED_SHARE))
        aspect = float(torch.empty(()).uniform_(*(torch.log(torch.tensor(_ERASED_ASPECT)).tolist())).exp())
        area = share * (x2 - x1) * (y2 - y1)
        high, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        top = int(torch.randint(int(y1), max(int(y2) - high, int(y1)) + 1, ()))
        left = int(torch.randint(int(x1), max(int(x2) - wide, int(x1)) + 1, ()))
        high, wide = min(high, image_size_px - top), min(wide, image_size_px - left)
        if high > 0 and wide > 0:
            erased.append(Erased(top, left, high, wide, torch.randint(0, 256, (3, 1, 1), dtype=torch.uint8)))
    return tuple(erased)


def change_colours(frames: Tensor, change: PhotometricChange) -> Tensor:
    """Distorts the colours of a clip and erases what is to be erased.

    Args:
        frames: uint8 [F, H, W, 3] RGB, on any device.
        change: what is to be done.

    Returns:
        The same shape; `frames` itself where there is nothing to do.
    """
    if change == PhotometricChange():
        return frames
    images = frames.permute(0, 3, 1, 2)  # [F, H, W, 3] -> [F, 3, H, W]
    if change.distortion is not None:
        images = _distort().transform(images, change.distortion)
    for each in change.erased:
        colour = each.colour.to(images.device)
        images = F.erase(images, each.top, each.left, each.height, each.width, colour)
    return images.permute(0, 2, 3, 1)
