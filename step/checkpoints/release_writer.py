"""A detector as a checkpoint that the 2019 release's code reads.

Source: SPEC.md, "Checkpoints of the release"; shared/reference/checkpoint_keys.json.
"""

import argparse
from typing import Any

from torch import Tensor

from step.checkpoints.release_reader import SCALE_NORM, class_ids_of
from step.config import StepConfig
from step.errors import StepError
from step.models.detector import StepDetector
from step.models.i3d import release_layer_names

_MODULE_PREFIX = "module."  # the release wraps backbone and context in DataParallel, the heads not


def release_content(detector: StepDetector) -> dict[str, Any]:
    """Makes what the release's checkpoint holds of a model: `base_net`, `context_net`, `det_net0`, ..., `cfg`.

    Raises:
        StepError: a model that the release has no words for (another width, or classes that are not its).
    """
    config = detector.config
    if config.width != 1.0:
        raise StepError(f"the model's width is {config.width}; the release's format knows only 1.0")
    if config.class_ids != class_ids_of(config.num_classes):
        raise StepError("the release's format knows AVA's 60 or 80 classes, or classes 1 to K; the model's are others")
    content: dict[str, Any] = {"base_net": {}, "context_net": {}} | {f"det_net{i}": {} for i in range(config.num_steps)}
    layers = {name: index for index, name in release_layer_names().items()}
    for key, value in detector.state_dict().items():
        net, name = _release_key(key, layers)
        content[net][name] = _release_tensor(key, value.detach().cpu())
    return content | {"cfg": _release_cfg(config)}


def _release_key(key: str, layers: dict[str, int]) -> tuple[str, str]:
    """Returns the network and the release's name of one of our parameters."""
    part, _, rest = key.partition(".")
    if part == "backbone":
        layer, _, below = rest.partition(".")
        return "base_net", f"{_MODULE_PREFIX}base_model.{layers[layer]}.{below}"
    if part == "context":
        block, _, below = rest.partition(".")
        return "context_net", f"{_MODULE_PREFIX}i3d_conv_context.{1 if block == 'mixed_5b' else 2}.{below}"
    step, _, name = rest.partition(".")
    block, _, below = name.partition(".")
    if block in ("mixed_5b", "mixed_5c"):
        name = f"i3d_conv.{0 if block == 'mixed_5b' else 1}.{below}"
    return f"det_net{step}", name


def _release_tensor(key: str, value: Tensor) -> Tensor:
    """Makes the classifier a 1x1x1 convolution, as the release's is."""
    return value[:, :, None, None, None] if key.endswith("global_cls.weight") else value


def _release_cfg(config: StepConfig) -> argparse.Namespace:
    return argparse.Namespace(
        T=config.chunk_frames,
        max_iter=config.num_steps,
        fps=12,
        NUM_CHUNKS=dict(enumerate(config.chunks, 1)),
        num_classes=config.num_classes,
        anchor_mode=str(config.anchor_mode),
        temporal_mode=config.temporal_mode,
        pool_mode=config.pool_mode,
        pool_size=config.pool_size,
        fc_dim=config.fc_dim,
        no_context=not config.context,
        image_size=(config.image_size_px, config.image_size_px),
        scale_norm=SCALE_NORM,
        conf_thresh=0.01,
        nms_thresh=0.4,
        topk=300,
        evaluate_topk=300,
    )
