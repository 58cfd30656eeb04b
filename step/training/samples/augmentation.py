"""Augmentation of a whole clip with its tubes: cropping, flipping, resizing; colours are changed later.

Source: SPEC.md, "Training (detection)", augmentation; torchvision.transforms.v2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from step.data.ava_dataset import Sample
from step.data.frame_store import CLIP_FRAMES
from step.data.torchvision import F, tv_tensors, v2
from step.errors import StepError
from step.training.samples.photometric import PhotometricChange, draw_distortion, draw_erased


class AugmentedSample(Sample):
    """Holds a sample at the model's input size.

    Attributes:
        photometric: what is still to be done to it, by `step.training.samples.photometric.change_colours`.
    """

    photometric: PhotometricChange


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions:
    """Says what is done to a clip, each with its own chance.

    Attributes:
        photometric, crop, flip, erase: whether at all.
    """

    photometric: bool = True
    crop: bool = True
    flip: bool = True
    erase: bool = True


class Augmentation:
    """Transforms samples of `AvaDataset`: the release's augmentation, at the model's input size.

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
        self._crop = v2.RandomIoUCrop(min_scale=0.3, max_scale=1.0, min_aspect_ratio=0.5, max_aspect_ratio=2.0)

    def __call__(self, sample: Sample) -> AugmentedSample:
        """Augments frames and boxes together; people outside the crop are dropped."""
        margin = (len(sample["frames"]) - self.clip_frames) // 2
        middle = sample["frames"][margin : margin + self.clip_frames]
        sample["frames"] = tv_tensors.wrap(middle, like=sample["frames"])
        options = self.options
        if options is None:
            return {**_mapped(sample, self._resized), "photometric": PhotometricChange()}
        if options.crop:
            sample = self._cropped(sample)
        if options.flip and float(torch.rand(())) < 0.5:
            sample = _mapped(sample, F.horizontal_flip)
        sample = _mapped(sample, self._resized)
        distortion = draw_distortion(sample["frames"]) if options.photometric else None
        erases = options.erase and float(torch.rand(())) < 0.5
        erased = draw_erased(sample["boxes"], image_size_px=self.size[0]) if erases else ()
        return {**sample, "photometric": PhotometricChange(distortion, erased)}

    def _resized(self, value: Tensor) -> Tensor:
        # as cv2.INTER_LINEAR, which knows no antialiasing
        return cast(Tensor, F.resize(value, self.size, antialias=False))

    def _cropped(self, sample: Sample) -> Sample:
        """Crops so that enough of somebody is kept, which the people's boxes alone decide."""
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
    """Calls one function of torchvision's, which keeps their kinds, with the frames and with all boxes."""
    sample["frames"] = function(sample["frames"])
    sample["boxes"] = function(sample["boxes"])
    sample["neighbour_boxes"] = function(sample["neighbour_boxes"])
    sample["proposals"] = function(sample["proposals"])
    return sample
