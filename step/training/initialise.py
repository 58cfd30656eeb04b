"""A detector as training begins with it.

Source: SPEC.md, "Training (detection)", initialisation.
"""

from pathlib import Path

from torch import Tensor, nn

from step.checkpoints.kinetics import initialise_from_kinetics
from step.checkpoints.own_format import load_checkpoint
from step.checkpoints.state import load_state
from step.errors import StepError
from step.models.detector import StepDetector
from step.models.head import TwoBranchHead
from step.training.config import TrainingConfig

_PRIOR_LOGIT = -2.0  # few of the classes apply to a person
_REGRESSION_STD = 1e-3
_CLASSIFIER_STD = 1e-2


def build_detector(config: TrainingConfig, *, resumed: bool = False) -> StepDetector:
    """Builds a detector of the config's architecture; weights that are not given come from torch's random state.

    Args:
        config: of the run.
        resumed: the weights come from the run's checkpoint: what it began from is not read and need not exist any more.

    Raises:
        StepError: weights that are missing, damaged or of another architecture.
    """
    model = config.model
    detector = StepDetector.from_config(config.step_config())
    _initialise(detector)
    if model.kinetics is not None and not resumed:
        initialise_from_kinetics(detector, model.kinetics)
    if model.classifier is not None and not resumed:
        _from_classifier(detector, model.classifier)
    if model.checkpoint is not None and not resumed:
        other = load_checkpoint(model.checkpoint)
        _check_classes(other, detector, model.checkpoint)
        load_state(detector, other.state_dict(), source=model.checkpoint)
    for head in detector.heads:
        assert isinstance(head, TwoBranchHead)
        head.dropout.p = model.dropout
    return detector


def freeze(detector: StepDetector, *, norm: bool, backbone: bool) -> None:
    """Takes BatchNorm, which then has eval's statistics in training too, or the backbone out of training."""
    if norm:
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.requires_grad_(False)
                module.eval()
    if backbone:
        detector.backbone.requires_grad_(False)
        detector.backbone.eval()


def _initialise(detector: StepDetector) -> None:
    """Applies He's rule to convolutions, so that signals keep their size without norms, and makes last layers small."""
    for module in detector.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for head in detector.heads:
        assert isinstance(head, TwoBranchHead)
        for layer in (head.local_reg, head.neighbor_reg1, head.neighbor_reg2):
            nn.init.normal_(layer.weight, std=_REGRESSION_STD)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(head.global_cls.weight, std=_CLASSIFIER_STD)
        nn.init.constant_(head.global_cls.bias, _PRIOR_LOGIT)


def _from_classifier(detector: StepDetector, path: Path) -> None:
    """Copies backbone, context, and the only head into every step's, but for the classifier layer."""
    source = load_checkpoint(path)
    state: dict[str, Tensor] = detector.state_dict()
    trained = source.state_dict()
    for key in state:
        part, _, rest = key.partition(".")
        from_key = key if part != "heads" else f"heads.0.{rest.partition('.')[2]}"
        if "global_cls" not in key and from_key in trained:
            state[key] = trained[from_key]
    load_state(detector, state, source=path)


def _check_classes(source: StepDetector, wanted: StepDetector, path: Path) -> None:
    if source.config.class_ids != wanted.config.class_ids:
        raise StepError(
            f"{path}: has {source.config.num_classes} classes, the run's data {wanted.config.num_classes}, or others; "
            "set data.classes to the checkpoint's, or begin from model.classifier, which leaves the classes out"
        )
