"""Classification pre-training: one step's action scores on boxes around the ground truth and on background.

Shape legend: B clips, M people of a clip, S tubes, T feature frames, K classes.
Source: SPEC.md, "Training (classification pre-training)".
"""

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from step.evaluation.ava_rows import Row, detection_rows
from step.models.detector import StepDetector
from step.training.objectives.losses import MeanCounts, StepLosses
from step.training.objectives.selection import box_iou
from step.training.samples.batch import Batch, People

_OWN_IOU, _OTHER_IOU = 0.75, 0.2
BACKGROUND_PER_PERSON = 3
_TRIES = 64  # boxes that are drawn at once, of which the first that fits is taken
_JITTER = 0.15  # standard deviation of a corner, in sides of the box
_SMALLEST_SHARE = 0.1  # of a background box's side in the frame's


class ClassificationTask(nn.Module):
    """Wraps a one-step detector whose forward pass is its classification loss; see `DetectionTask`.

    Args:
        detector: with one step that looks at the whole clip. Its local branch is frozen.
        seed: of the boxes, with the epoch and the clip.
        mean_counts: see `step_losses`.
    """

    def __init__(self, *, detector: StepDetector, seed: int, mean_counts: MeanCounts) -> None:
        super().__init__()
        self.detector = detector
        self.seed = seed
        self.mean_counts = mean_counts
        for name, parameter in detector.heads.named_parameters():
            if name.split(".")[1] in ("local_conv", "downsample2", "local_reg", "neighbor_reg1", "neighbor_reg2"):
                parameter.requires_grad_(False)

    def forward(self, batch: Batch, epoch: int) -> list[StepLosses]:
        """Returns the loss, as that of one step that regresses nothing."""
        tubes_px, labels, valid = classification_tubes(
            batch, image_size_px=self.detector.config.image_size_px, seed=f"{self.seed} {epoch}"
        )
        logits = classify(self.detector, batch.frames, tubes_px)
        counts = torch.stack((valid.sum() * labels.shape[2], *torch.zeros_like(valid.sum()).expand(2)))
        count = self.mean_counts(counts.float())[0].clamp(min=1)
        loss = F.binary_cross_entropy_with_logits(logits[valid], labels[valid], reduction="sum") / count
        return [StepLosses(loss, torch.zeros_like(loss), torch.zeros_like(loss))]


def classify(detector: StepDetector, frames: Tensor, boxes_px: Tensor) -> Tensor:
    """Returns the logits [B, S, K] of boxes [B, S, 4] that stay where they are through the clip."""
    clip = detector.extract(frames)
    tubes_px = boxes_px[:, :, None].expand(-1, -1, detector.config.step_frames(0), -1)
    return detector.run_head(clip, tubes_px, step=0).logits


def classification_tubes(batch: Batch, *, image_size_px: int, seed: str) -> tuple[Tensor, Tensor, Tensor]:
    """Draws the boxes to classify: each person's, moved a little, and background.

    Returns:
        [B, S, 4] px, their labels [B, S, K] (0 for background), and bool [B, S], false for rows that fill up.
    """
    rows = []
    for people, (video, second) in zip(batch.people, batch.ids, strict=True):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {video} {second}".encode()))
        rows.append(_boxes_of(people, image_size_px, generator))
    size = max(max(len(boxes) for boxes, _ in rows), 1)
    device = batch.frames.device
    num_classes = batch.people[0].labels.shape[1]
    boxes_px = torch.tensor([0.0, 0.0, image_size_px, image_size_px]).repeat(len(rows), size, 1)
    labels, valid = torch.zeros(len(rows), size, num_classes), torch.zeros(len(rows), size, dtype=torch.bool)
    for row, (boxes, targets) in enumerate(rows):
        boxes_px[row, : len(boxes)], labels[row, : len(boxes)], valid[row, : len(boxes)] = boxes, targets, True
    return boxes_px.to(device), labels.to(device), valid.to(device)


def _boxes_of(people: People, image_size_px: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws the boxes of one clip on the CPU, people first: boxes [S, 4] px and labels [S, K]."""
    true_px, labels = people.boxes_px.cpu(), people.labels.cpu()
    positives = [_jittered(true_px, person, image_size_px, generator) for person in range(len(true_px))]
    background = _background(true_px, BACKGROUND_PER_PERSON * len(true_px), image_size_px, generator)
    boxes = torch.cat((*positives, background))
    return boxes, torch.cat((labels, labels.new_zeros(len(background), labels.shape[1])))


def _jittered(true_px: Tensor, person: int, image_size_px: int, generator: torch.Generator) -> Tensor:
    """Draws a box [1, 4] near a person's that nobody else's overlaps much; their own where no try is one."""
    own = true_px[person]
    sides = (own[2:] - own[:2]).repeat(2)
    tries = (own + _JITTER * sides * torch.randn(_TRIES, 4, generator=generator)).clamp(0, image_size_px)
    iou = box_iou(tries, true_px)
    fits = (iou[:, person] > _OWN_IOU) & (tries[:, 2:] > tries[:, :2]).all(1)
    iou[:, person] = 0
    fits &= iou.amax(1) < _OTHER_IOU
    return tries[fits][:1] if fits.any() else own[None]


def _background(true_px: Tensor, count: int, image_size_px: int, generator: torch.Generator) -> Tensor:
    """Draws boxes that overlap nobody much, [at most count, 4]."""
    corners = torch.rand(_TRIES * max(count, 1), 2, 2, generator=generator)
    low, high = corners.amin(1), corners.amax(1)
    tries = torch.cat((low, high), dim=1) * image_size_px
    fits = ((high - low) >= _SMALLEST_SHARE).all(1)
    if len(true_px):
        fits &= box_iou(tries, true_px).amax(1) < _OTHER_IOU
    return tries[fits][:count]


def classified_rows(detector: StepDetector, clips: Batch) -> list[list[Row]]:
    """Returns rows of AVA's csv: every class's score at every box of the ground truth; one step."""
    rows: list[Row] = []
    size = max(len(people.boxes_px) for people in clips.people)
    boxes_px = torch.zeros(len(clips.people), max(size, 1), 4, device=clips.frames.device)
    boxes_px[..., 2:] = detector.config.image_size_px
    for row, people in enumerate(clips.people):
        boxes_px[row, : len(people.boxes_px)] = people.boxes_px
    with torch.inference_mode():
        scores = classify(detector, clips.frames, boxes_px).sigmoid().cpu().numpy()
    for row, (people, (video, second)) in enumerate(zip(clips.people, clips.ids, strict=True)):
        shares = (people.boxes_px / detector.config.image_size_px).clamp(0, 1).cpu().numpy()
        for person, box in enumerate(shares):
            labels = detector.config.class_ids
            rows += detection_rows(video, second, [box] * len(labels), labels, scores[row, person])
    return [rows]
