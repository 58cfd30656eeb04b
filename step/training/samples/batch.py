"""Samples of key frames collated to a batch.

Shape legend: B clips, F input frames, M people of a clip, K classes.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from step.training.samples.augmentation import AugmentedSample
from step.training.samples.photometric import PhotometricChange, change_colours


@dataclass(frozen=True)
class People:
    """Holds the ground truth of one clip, in pixels of the model's input.

    Attributes:
        boxes_px: float32 [M, 4].
        labels: float32 [M, K].
        neighbour_px: float32 [M, 2, 4], a second before and after.
        neighbour_known: bool [M, 2].
    """

    boxes_px: Tensor
    labels: Tensor
    neighbour_px: Tensor
    neighbour_known: Tensor

    def to(self, device: torch.device) -> Self:
        """Returns a copy on another device."""
        return type(self)(
            self.boxes_px.to(device),
            self.labels.to(device),
            self.neighbour_px.to(device),
            self.neighbour_known.to(device),
        )


class Batch:
    """Holds what a training step is given.

    Not a dataclass: under mixed precision Fabric looks into those and rounds what it finds to half, but boxes in pixels
    need all of float32.

    Args:
        frames: uint8 [B, F, H, W, 3] RGB.
        people: of each clip.
        ids: video and second of each clip.
        photometric: what is still to be done to the colours of each clip.
    """

    def __init__(
        self, frames: Tensor, people: list[People], ids: list[tuple[str, int]], photometric: list[PhotometricChange]
    ) -> None:
        self.frames, self.people, self.ids, self.photometric = frames, people, ids, photometric

    def to(self, device: torch.device) -> Self:
        """Returns a copy on another device."""
        frames = self.frames.to(device, non_blocking=True)
        return type(self)(frames, [people.to(device) for people in self.people], self.ids, self.photometric)

    def with_colours_changed(self) -> Self:
        """Returns the batch with its clips changed: nothing is left to be done."""
        clips = [change_colours(*each) for each in zip(self.frames, self.photometric, strict=True)]
        return type(self)(torch.stack(clips), self.people, self.ids, [PhotometricChange()] * len(clips))

    def pin_memory(self) -> Self:
        """Returns a copy whose frames lie in page-locked memory; the DataLoader calls it."""
        return type(self)(self.frames.pin_memory(), self.people, self.ids, self.photometric)


def collate(samples: list[AugmentedSample]) -> Batch:
    """Makes a batch of samples whose frames have the model's size; for a DataLoader."""
    # [F, 3, H, W] each -> [B, F, H, W, 3]
    frames = torch.stack([sample["frames"].as_subclass(Tensor).permute(0, 2, 3, 1) for sample in samples]).contiguous()
    people = [
        People(
            boxes_px=sample["boxes"].as_subclass(Tensor),
            labels=sample["labels"],
            neighbour_px=sample["neighbour_boxes"].as_subclass(Tensor).reshape(-1, 2, 4),
            neighbour_known=sample["neighbour_known"],
        )
        for sample in samples
    ]
    ids = [(sample["video"], sample["second"]) for sample in samples]
    return Batch(frames, people, ids, [sample["photometric"] for sample in samples])
