"""Augmentation of a whole clip with its tubes, in the release's order.

Source: SPEC.md, "Training (detection)", augmentation; torchvision.transforms.v2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from step.data.ava_dataset import Sample
from step.data.frame_store import CLIP_FRAMES
from step.errors import StepError

_ERASED_SHARE = (0.02, 0.2)
_ERASED_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions:
    """What is done to a clip, each with its own chance.

    Attributes:
        photometric, crop, flip, erase: whether at all.
    """

    photometric: bool = True
    crop: bool = True
    flip: bool = True
    erase: bool = True


class Augmentation:
    """A transform for `AvaDataset`: the release's augmentation, then the model's input size.

    Args:
        image_size_px: side of the square that comes out; the aspect ratio is not kept.
        clip_frames: that the model takes, the middle ones of the clip's; the key frame begins their second half too.
        options: what is done; None for resizing alone.

    Raises:
        StepError: a model of longer clips than the data set gives.
    """

    def __init__(self, *, image_size_px: int, clip_frames: int, options: AugmentationOptions | None) -> None:
        if clip_frames > CLIP_FRAMES:
            raise StepError(
                f"the model takes clips of {clip_frames} frames; AVA's layout gives {CLIP_FRAMES} a key frame"
            )
        self.clip_frames = clip_frames
        self.size = [image_size_px, image_size_px]
        self.options = options
        self._photometric = v2.RandomPhotometricDistort(
            brightness=(1 - 32 / 255, 1 + 32 / 255),
            contrast=(0.5, 1.5),
            saturation=(0.5, 1.5),
            hue=(-18 / 360, 18 / 360),
            p=0.5,
        )
        self._crop = v2.RandomIoUCrop(min_scale=0.3, max_scale=1.0, min_aspect_ratio=0.5, max_aspect_ratio=2.0)

    def __call__(self, sample: Sample) -> Sample:
        """Frames and boxes together; people outside the crop are dropped."""
        margin = (len(sample["frames"]) - self.clip_frames) // 2
        middle = sample["frames"][margin : margin + self.clip_frames]
        sample["frames"] = tv_tensors.wrap(middle, like=sample["frames"])
        if self.options is not None:
            if self.options.photometric:
                sample["frames"] = self._photometric(sample["frames"])
            if self.options.crop:
                sample = self._cropped(sample)
            if self.options.flip and float(torch.rand(())) < 0.5:
                sample = _mapped(sample, F.horizontal_flip)
            if self.options.erase and float(torch.rand(())) < 0.5:
                sample["frames"] = _erased(sample["frames"], sample["boxes"])
        return _mapped(sample, self._resized)

    def _resized(self, value: Tensor) -> Tensor:
        # as cv2.INTER_LINEAR, which knows no antialiasing
        return cast(Tensor, F.resize(value, self.size, antialias=False))

    def _cropped(self, sample: Sample) -> Sample:
        """A crop that keeps enough of somebody: chosen by the people's boxes alone."""
        if not len(sample["boxes"]):
            return sample
        params = self._crop.make_params([sample["frames"], sample["boxes"]])
        if not params:
            return sample
        kept = params["is_within_crop_area"]
        window = [params[name] for name in ("top", "left", "height", "width")]
        count = len(sample["boxes"])
        sample["labels"] = sample["labels"][kept]
        sample["neighbour_known"] = sample["neighbour_known"][kept]
        both = sample["neighbour_boxes"].reshape(count, 2, 4)[kept].reshape(-1, 4)
        sample["neighbour_boxes"] = tv_tensors.wrap(both, like=sample["neighbour_boxes"])
        sample["boxes"] = tv_tensors.wrap(sample["boxes"][kept], like=sample["boxes"])
        sample = _mapped(sample, lambda value: F.crop(value, *window))
        # A neighbour whose box the crop cut away is not known any more.
        sides = sample["neighbour_boxes"].as_subclass(Tensor).reshape(-1, 2, 4)
        is_there = ((sides[..., 2:] - sides[..., :2]) > 1).all(-1)
        sample["neighbour_known"] = sample["neighbour_known"] & is_there
        return sample


def _mapped(sample: Sample, function: Callable[[Tensor], Any]) -> Sample:
    """Frames and all boxes through one function of torchvision's, which keeps their kinds."""
    sample["frames"] = function(sample["frames"])
    sample["boxes"] = function(sample["boxes"])
    sample["neighbour_boxes"] = function(sample["neighbour_boxes"])
    sample["proposals"] = function(sample["proposals"])
    return sample


def _erased(frames: tv_tensors.Video, boxes: Tensor) -> tv_tensors.Video:
    """Noise of one colour over 2 to 20 % of every person's box, at the same place in every frame."""
    height, width = frames.shape[-2:]
    for x1, y1, x2, y2 in boxes.as_subclass(Tensor).tolist():
        share = float(torch.empty(()).uniform_(*_ERASED_SHARE))
        aspect = float(torch.empty(()).uniform_(*(torch.log(torch.tensor(_ERASED_ASPECT)).tolist())).exp())
        area = share * (x2 - x1) * (y2 - y1)
        high, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        top = int(torch.randint(int(y1), max(int(y2) - high, int(y1)) + 1, ()))
        left = int(torch.randint(int(x1), max(int(x2) - wide, int(x1)) + 1, ()))
        high, wide = min(high, height - top), min(wide, width - left)
        if high > 0 and wide > 0:
            colour = torch.randint(0, 256, (3, 1, 1), dtype=torch.uint8)
            frames = F.erase(frames, top, left, high, wide, colour)
    return frames
