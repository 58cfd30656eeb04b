"""Learning rates: linear warm-up, then a cosine to 0, for every group of parameters.

Source: SPEC.md, "Training (detection)"; golden array `cosine_lr`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from step.models.detector import StepDetector

_WARMUP_START = 0.1
_BIAS_RATE = 2.0
_BACKBONE_PARTS = {  # share of the backbone's rate, by name of a layer; the others have all of it
    "conv3d_1a_7x7": 1 / 8,
    "conv3d_2b_1x1": 1 / 4,
    "conv3d_2c_3x3": 1 / 4,
    "mixed_3b": 1 / 2,
    "mixed_3c": 1 / 2,
}


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Holds the rates of the detector's parts.

    Attributes:
        backbone: of its last layers; the first ones have an eighth to a half.
        context: of the I3D part of the heads and of the context branch.
        heads: of the rest of the heads.
    """

    backbone: float = 7.5e-5
    context: float = 1.5e-4
    heads: float = 7.5e-4


def cosine_factor(iteration: int, *, warmup: int, total: int) -> float:
    """Returns the share of the full rate at an iteration, from 0: it rises from a tenth, then falls to 0."""
    done = iteration + 1
    if done <= warmup:
        return _WARMUP_START + (1 - _WARMUP_START) * done / warmup
    return 0.5 * (1 + math.cos(math.pi * min((done - warmup) / max(total - warmup, 1), 1.0)))


def parameter_groups(detector: StepDetector, rates: LearningRates, *, weight_decay: float) -> list[dict[str, Any]]:
    """Groups parameters for an optimizer; biases have twice the rate and no decay, frozen ones are left out."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter, rate in _rated(detector, rates):
        if parameter.requires_grad:
            groups.setdefault((rate, name.endswith(".bias") and parameter.ndim == 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * (_BIAS_RATE if is_bias else 1),
            "weight_decay": 0.0 if is_bias else weight_decay,
        }
        for (rate, is_bias), parameters in groups.items()
    ]


def _rated(detector: StepDetector, rates: LearningRates) -> Iterator[tuple[str, nn.Parameter, float]]:
    for name, parameter in detector.named_parameters():
        part, _, rest = name.partition(".")
        if part == "backbone":
            yield name, parameter, rates.backbone * _BACKBONE_PARTS.get(rest.split(".")[0], 1.0)
        elif part == "context" or ".mixed_5" in name:
            yield name, parameter, rates.context
        else:
            yield name, parameter, rates.heads
