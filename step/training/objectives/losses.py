"""The three losses of a progressive step.

Shape legend: B clips, S selected tubes, K classes, T' feature frames of the step, T of a chunk.
Source: SPEC.md, "Training (detection)", losses; paper section 3.4.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from step.models.head import HeadOutput
from step.ops.box_coding import encode_boxes

BOX_WEIGHT = 5.0
NEIGHBOUR_WEIGHT = 1.0

MeanCounts = Callable[[Tensor], Tensor]
"""Counts [3] of this process to the mean of all processes."""


class StepTargets(NamedTuple):
    """Says what a step's tubes are to become.

    Attributes:
        tubes_px: [B, S, T', 4] the step's input tubes.
        valid: bool [B, S], false for the rows that fill up clips with fewer tubes.
        labels: float32 [B, S, K]; all 0 for negatives.
        boxes_px: [B, S, 4] the person's box in the key frame.
        regress: bool [B, S], which boxes count.
        neighbour_px: [B, S, 2, 4] the person's box a second before and after.
        neighbour: bool [B, S, 2], which of those count.
    """

    tubes_px: Tensor
    valid: Tensor
    labels: Tensor
    boxes_px: Tensor
    regress: Tensor
    neighbour_px: Tensor
    neighbour: Tensor


class StepLosses(NamedTuple):
    """Holds the losses of one step; the total is weighted.

    Attributes:
        classification: mean binary cross-entropy over all selected tubes and classes.
        box: mean smooth-L1 of the middle frame's deltas over the boxes that count.
        neighbour: the same for the chunks a second before and after.
    """

    classification: Tensor
    box: Tensor
    neighbour: Tensor

    @property
    def total(self) -> Tensor:
        """Returns the weighted sum."""
        return self.classification + BOX_WEIGHT * self.box + NEIGHBOUR_WEIGHT * self.neighbour


def step_losses(
    output: HeadOutput, targets: StepTargets, *, mean_counts: MeanCounts = lambda counts: counts
) -> StepLosses:
    """Returns the losses of a step.

    Args:
        output: of the head on `targets.tubes_px`: logits [B, S, K], deltas [B, S, T', 4], neighbours' [B, S, T, 4].
        targets: see there.
        mean_counts: with several processes, whose gradients are averaged: what each loss is divided by is then the
            mean over them, so that the average is that of one process with all clips.
    """
    num_classes, middle = output.logits.shape[2], targets.tubes_px.shape[2] // 2
    chunk = output.first_deltas.shape[2]
    inside = chunk // 2  # the middle frame of the first chunk, and from the end of the last
    # [B, S, 2, 4]: the chunks a second before and after
    deltas = torch.stack((output.first_deltas[:, :, inside], output.last_deltas[:, :, inside]), dim=2)
    references_px = torch.stack((targets.tubes_px[:, :, inside], targets.tubes_px[:, :, inside - chunk]), dim=2)
    sums = (
        F.binary_cross_entropy_with_logits(
            output.logits[targets.valid], targets.labels[targets.valid], reduction="sum"
        ),
        _box_loss(output.deltas[:, :, middle], targets.boxes_px, targets.tubes_px[:, :, middle], targets.regress),
        _box_loss(deltas, targets.neighbour_px, references_px, targets.neighbour),
    )
    rows = torch.stack((targets.valid.sum() * num_classes, targets.regress.sum() * 4, targets.neighbour.sum() * 4))
    counts = mean_counts(rows.float()).clamp(min=1)
    return StepLosses(*(total / count for total, count in zip(sums, counts, strict=True)))


def _box_loss(deltas: Tensor, boxes_px: Tensor, references_px: Tensor, counts: Tensor) -> Tensor:
    """Sums the smooth-L1 loss of the deltas [..., 4] that count; 0, with a gradient of 0, where none does."""
    wanted = encode_boxes(boxes_px[counts], references_px[counts])
    return F.smooth_l1_loss(deltas[counts], wanted, reduction="sum")
