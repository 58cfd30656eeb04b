"""What memory a training step takes at least, counted on tensors without values.

Shape legend: B clips, S selected tubes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from step.models.detector import StepDetector
from step.training.config import TrainingConfig
from step.training.objectives.classification import BACKGROUND_PER_PERSON

_ADAM_MOMENTS = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Counts bytes on one device.

    Attributes:
        weights: parameters and buffers, float32, and under mixed precision their halves.
        gradients, optimizer: of the parameters that are trained.
        activations: what the forward pass keeps for the gradient.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Adds all of it up; the library's own buffers and fragmentation come on top."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(config: TrainingConfig) -> MemoryEstimate:
    """Counts one update of one device: `optimizer.batch` clips, each with as many tubes as are selected at most.

    Args:
        config: of the run; mixed precision is counted as networks in half.
    """
    with torch.device("meta"):
        detector = StepDetector.from_config(config.step_config())
    trained = sum(_bytes(p) for p in detector.parameters())
    frozen = sum(_bytes(p) for p in detector.backbone.parameters()) if config.model.freeze_backbone else 0
    weights = trained + sum(_bytes(b) for b in detector.buffers())
    is_half = config.precision != "fp32"
    if is_half:
        detector.half_networks()
        weights += trained // 2
    detector.train()
    for module in detector.modules():
        if config.model.freeze_norm and isinstance(module, nn.BatchNorm3d):
            module.eval()
    detector.backbone.requires_grad_(not config.model.freeze_backbone)
    detector.backbone.checkpointing = config.checkpointing
    return MemoryEstimate(
        weights=weights,
        gradients=trained - frozen,
        optimizer=_ADAM_MOMENTS * (trained - frozen),
        activations=_kept_bytes(detector, config),
    )


def _kept_bytes(detector: StepDetector, config: TrainingConfig) -> int:
    """Counts every storage that autograd keeps once; weights are counted elsewhere."""
    shape = detector.config
    negatives = config.selection.negatives_per_positive if config.kind == "detect" else BACKGROUND_PER_PERSON
    tubes = config.selection.max_positives * (1 + negatives)  # to classify, of as many people
    own = {p.untyped_storage()._cdata for p in (*detector.parameters(), *detector.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own:
            kept[key] = tensor  # held, so that no other storage takes its place
        return tensor

    batch, size = config.optimizer.batch, shape.image_size_px
    frames = torch.zeros(batch, shape.clip_frames, size, size, 3, dtype=torch.uint8, device="meta")
    outputs = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        clip = detector.extract(frames)
        for step in range(shape.num_steps):
            tubes_px = torch.zeros(batch, tubes, shape.step_frames(step), 4, device="meta")
            outputs.append(detector.run_head(clip, tubes_px, step=step))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
