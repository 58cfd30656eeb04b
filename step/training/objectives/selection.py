"""Which candidate tubes of a clip a step is trained on.

Shape legend: N candidate tubes, M people of the ground truth, S selected tubes.
Source: SPEC.md, "Training (detection)", selection; paper section 3.4.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NOBODY = -1


class Selection(NamedTuple):
    """Holds the selected tubes of one clip: positives first, then negatives.

    Attributes:
        tube: int64 [S], place among the candidates; none twice.
        person: int64 [S], whom the tube is to find; of negatives the person whom it overlaps most.
        classify: bool [S], whether the person's actions are the target; no action is otherwise.
        regress: bool [S], whether the person's box is a target.
    """

    tube: Tensor
    person: Tensor
    classify: Tensor
    regress: Tensor


def box_iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """Returns the IoU of every pair, [N, 4] and [M, 4] px -> [N, M]; areas are plain, without "+1"."""
    low = torch.maximum(first_xyxy[:, None, :2], second_xyxy[None, :, :2])
    high = torch.minimum(first_xyxy[:, None, 2:], second_xyxy[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first_xyxy, second_xyxy)]
    return inter / (areas[0][:, None] + areas[1][None] - inter).clamp(min=1e-6)


def select_tubes(
    iou: Tensor,
    scores: Tensor | None,
    *,
    positive_iou: float,
    regression_iou: float,
    max_positives: int = 5,
    negatives_per_positive: int = 2,
    generator: torch.Generator | None = None,
) -> Selection:
    """Chooses positives and negatives of one clip.

    Each person takes the free candidate that overlaps them most; then random candidates that overlap somebody by more
    than `positive_iou`, up to `max_positives`. Negatives are drawn from those that overlap nobody so much, with
    probability softmax(score).

    Args:
        iou: [N, M] overlap of the middle frames with the people.
        scores: [N] of the candidates; None for the first step, where the largest IoU stands in.
        positive_iou: overlap above which a candidate may be positive, and is never negative.
        regression_iou: overlap from which on a negative is trained to find the person's box.
        max_positives: unless there are more people.
        negatives_per_positive: how many, as far as there are candidates; the same number for one positive without any.
        generator: of the randomness.
    """
    num_tubes, num_people = iou.shape
    device = iou.device
    best_iou, best_person = _best(iou)
    taken = torch.zeros(num_tubes, dtype=torch.bool, device=device)
    person = best_person.clone()
    for index in range(min(num_people, num_tubes)):  # one after the other: who comes later takes what is left
        best_free = int(iou[:, index].masked_fill(taken, -1).argmax())
        taken[best_free] = True
        person[best_free] = index
    first = torch.nonzero(taken).flatten()
    above = best_iou > positive_iou
    more = torch.nonzero(above & ~taken).flatten()
    wanted = max(max_positives - len(first), 0)
    more = more[torch.randperm(len(more), generator=generator, device=device)[:wanted]]
    positives = torch.cat((first, more))
    rest = torch.nonzero(~above & ~taken).flatten()
    count = min(negatives_per_positive * max(len(positives), 1), len(rest))
    negatives = rest[:0]
    if count:
        chances = (best_iou if scores is None else scores)[rest].softmax(0)
        if not chances.isfinite().all():  # the network has diverged, which its losses are about to say
            chances = torch.ones_like(chances)
        negatives = rest[torch.multinomial(chances, count, generator=generator)]
    tube = torch.cat((positives, negatives))
    classify = torch.arange(len(tube), device=device) < len(positives)
    return Selection(tube, person[tube], classify, classify | (best_iou[tube] >= regression_iou))


def _best(iou: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the largest IoU [N] of each tube and with whom; nobody where there is nobody."""
    if not iou.shape[1]:
        return iou.new_full((len(iou),), -1.0), torch.full((len(iou),), NOBODY, device=iou.device)
    values, indices = iou.max(dim=1)
    return values, indices


def rank_candidates(scores: Tensor, *, max_candidates: int = 300) -> Tensor:
    """Ranks the candidates of a later step: of each class the best, then the best of those, each tube once.

    Args:
        scores: [N, K] class scores of the previous step's tubes.
        max_candidates: tubes that are kept; of each class up to 2 * max_candidates / K.

    Returns:
        int64 [C], places of the tubes, best first.
    """
    num_tubes, num_classes = scores.shape
    per_class = min(max(2 * max_candidates // num_classes, 1), num_tubes)
    best = torch.unique(scores.topk(per_class, dim=0).indices)
    order = scores[best].amax(dim=1).argsort(descending=True, stable=True)
    ranked: Tensor = best[order[:max_candidates]]
    return ranked
