"""STEP (Spatio-Temporal Progressive Learning for video action detection) in PyTorch.

The names below that need torch are imported on first use, so that the torch-free parts (`step.config`, `step.classes`,
`step.clips`, `step.anchors`, `step.bundles.manifest`, ...) serve programs that have no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from step.config import StepConfig
from step.detections import Detections
from step.errors import StepError

if TYPE_CHECKING:
    from step.checkpoints.kinetics import initialise_from_kinetics, load_kinetics_classifier
    from step.checkpoints.own_format import load_checkpoint, save_checkpoint
    from step.models.detector import StepDetector, StepOutput
    from step.models.i3d import I3DClassifier

__all__ = [
    "Detections",
    "I3DClassifier",
    "StepConfig",
    "StepDetector",
    "StepError",
    "StepOutput",
    "initialise_from_kinetics",
    "load_checkpoint",
    "load_kinetics_classifier",
    "save_checkpoint",
]

_NEEDS_TORCH = {
    "I3DClassifier": "step.models.i3d",
    "StepDetector": "step.models.detector",
    "StepOutput": "step.models.detector",
    "initialise_from_kinetics": "step.checkpoints.kinetics",
    "load_checkpoint": "step.checkpoints.own_format",
    "load_kinetics_classifier": "step.checkpoints.kinetics",
    "save_checkpoint": "step.checkpoints.own_format",
}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(importlib.import_module(_NEEDS_TORCH[name]), name)
    raise AttributeError(f"module 'step' has no attribute {name!r}")
