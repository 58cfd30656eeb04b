"""Losses of a detector on a batch: candidates with gradients off, selection, then each step with gradients.

Shape legend: B clips, N candidate tubes, M people of a clip, S selected tubes, T' feature frames of a step.
Source: SPEC.md, "Training (detection)"; paper section 3.4.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from step.models.detector import ClipFeatures, StepDetector
from step.training.objectives.losses import MeanCounts, StepLosses, StepTargets, step_losses
from step.training.objectives.selection import Selection, box_iou, rank_candidates, select_tubes
from step.training.samples.batch import Batch, People


@dataclass(frozen=True)
class SelectionOptions:
    """Says how tubes are selected, for each step.

    Attributes:
        positive_iou: overlap above which a candidate may be positive.
        regression_iou: overlap from which on a negative is trained to find the box.
        max_positives: of a clip, unless it has more people.
        negatives_per_positive: how many.
        max_candidates: tubes that a later step chooses from.
    """

    positive_iou: tuple[float, ...] = (0.2, 0.35, 0.5)
    regression_iou: tuple[float, ...] = (0.2, 0.35, 0.5)
    max_positives: int = 5
    negatives_per_positive: int = 2
    max_candidates: int = 300


@dataclass(frozen=True)
class Candidates:
    """Holds one step's input tubes for a clip: tubes_px [N, T', 4], scores [N] of the step before (None if first)."""

    tubes_px: Tensor
    scores: Tensor | None


class DetectionTask(nn.Module):
    """Wraps a detector: its forward pass is the losses, which is what distributed training needs.

    Args:
        detector: what is trained.
        options: see `SelectionOptions`.
        seed: of the selection's randomness, with the epoch and the clip: it is the same in whichever process a clip is.
        mean_counts: see `step_losses`.
    """

    def __init__(
        self, *, detector: StepDetector, options: SelectionOptions, seed: int, mean_counts: MeanCounts
    ) -> None:
        super().__init__()
        self.detector = detector
        self.options = options
        self.seed = seed
        self.mean_counts = mean_counts

    def forward(self, batch: Batch, epoch: int) -> list[StepLosses]:
        """Returns the losses of every step."""
        return detection_losses(
            self.detector, batch, self.options, seed=f"{self.seed} {epoch}", mean_counts=self.mean_counts
        )


def detection_losses(
    detector: StepDetector,
    batch: Batch,
    options: SelectionOptions,
    *,
    seed: str = "",
    mean_counts: MeanCounts = lambda counts: counts,
) -> list[StepLosses]:
    """Returns the losses of every step.

    Args:
        detector: in training mode, or not; candidates are collected in eval mode in any case.
        batch: clips and people.
        options: see `SelectionOptions`.
        seed: of the selection's randomness.
        mean_counts: see `step_losses`.
    """
    clip = detector.extract(batch.frames)
    losses = []
    for step, candidates in enumerate(collect_candidates(detector, clip, max_candidates=options.max_candidates)):
        generators = [_generator(f"{seed} {step} {video} {second}") for video, second in batch.ids]
        targets = step_targets(
            candidates,
            batch.people,
            options,
            step=step,
            has_neighbours=_has_neighbours(detector, step),
            generators=generators,
        )
        output = detector.run_head(clip, targets.tubes_px, step=step)
        losses.append(step_losses(output, targets, mean_counts=mean_counts))
    return losses


def _generator(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(text.encode()))


def collect_candidates(
    detector: StepDetector, clip: ClipFeatures, *, max_candidates: int = 300
) -> list[list[Candidates]]:
    """Collects every step's candidates of each clip; gradients are off and the networks in eval mode meanwhile."""
    anchors = detector.initial_tubes(len(clip.features))
    found = [[Candidates(tubes_px, None) for tubes_px in anchors]]
    training = [module for module in detector.modules() if module.training]
    detector.eval()
    try:
        with torch.no_grad():
            tubes_px = anchors
            for step in range(detector.config.num_steps - 1):
                output = detector.run_step(clip, tubes_px, step=step)
                tubes_px = detector.next_tubes(output, step=step)
                scores = output.scores.float()  # which are half under mixed precision
                ranks = [rank_candidates(each, max_candidates=max_candidates) for each in scores]
                best = scores.amax(dim=2)
                found.append([Candidates(tubes_px[row][rank], best[row][rank]) for row, rank in enumerate(ranks)])
    finally:
        for module in training:
            module.training = True
        torch.clear_autocast_cache()  # of half weights that were made without gradients
    return found


def step_targets(
    candidates: Sequence[Candidates],
    people: Sequence[People],
    options: SelectionOptions,
    *,
    step: int,
    has_neighbours: bool,
    generators: Sequence[torch.Generator],
) -> StepTargets:
    """Selects tubes of every clip and says what they are to become.

    Args:
        candidates, people: of each clip.
        options: see `SelectionOptions`.
        step: 0-based.
        has_neighbours: whether the boxes a second before and after are targets too.
        generators: on the CPU, of the randomness for each clip.
    """
    chosen: list[tuple[Candidates, People, Selection]] = []
    for mine, there, generator in zip(candidates, people, generators, strict=True):
        middle_px = mine.tubes_px[:, mine.tubes_px.shape[1] // 2]
        # on the CPU, where the many small operations are cheapest and random numbers the same everywhere
        selection = select_tubes(
            box_iou(middle_px, there.boxes_px).cpu(),
            None if mine.scores is None else mine.scores.cpu(),
            positive_iou=options.positive_iou[step],
            regression_iou=options.regression_iou[step],
            max_positives=options.max_positives,
            negatives_per_positive=options.negatives_per_positive,
            generator=generator,
        )
        chosen.append((mine, there, Selection(*(column.to(middle_px.device) for column in selection))))
    size = max(len(selection.tube) for _, _, selection in chosen)
    rows = [_targets_of(*each, size=size, has_neighbours=has_neighbours) for each in chosen]
    return StepTargets(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _targets_of(
    candidates: Candidates, people: People, selection: Selection, *, size: int, has_neighbours: bool
) -> StepTargets:
    """Makes the targets of one clip, filled up to `size` rows."""
    count = len(selection.tube)
    tubes_px = _filled(candidates.tubes_px[selection.tube], size, fill=candidates.tubes_px[:1])
    valid = torch.arange(size, device=tubes_px.device) < count
    if not len(people.boxes_px):  # nothing to find: all are negatives
        num_classes = people.labels.shape[1]
        nothing = valid & ~valid
        boxes_px = tubes_px[:, tubes_px.shape[1] // 2]
        return StepTargets(
            tubes_px,
            valid,
            tubes_px.new_zeros(size, num_classes),
            boxes_px,
            nothing,
            boxes_px[:, None].expand(-1, 2, -1),
            nothing[:, None].expand(-1, 2),
        )
    person = _filled(selection.person, size, fill=selection.person[:1])
    classify, regress = (
        _filled(mask, size, fill=mask.new_zeros(1)) for mask in (selection.classify, selection.regress)
    )
    known = people.neighbour_known[person] & (classify & has_neighbours)[:, None]
    return StepTargets(
        tubes_px,
        valid,
        people.labels[person] * classify[:, None],
        people.boxes_px[person],
        regress,
        people.neighbour_px[person],
        known,
    )


def _filled(rows: Tensor, size: int, *, fill: Tensor) -> Tensor:
    """Lengthens [S, ...] to [size, ...] with copies of `fill` [1, ...] behind."""
    return torch.cat((rows, fill.expand(size - len(rows), *rows.shape[1:])))


def _has_neighbours(detector: StepDetector, step: int) -> bool:
    """Says whether neighbours are trained: where a tube is then grown by its own predictions, they are."""
    config = detector.config
    grows = step + 1 < config.num_steps and config.grows_after(step)
    return config.temporal_mode == "predict" and grows
