"""The 2019 release's checkpoint: its config and its parameter names, as ours.

Source: SPEC.md, "Checkpoints of the release".
"""

import argparse
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from step.classes import AVA_CLASS_NAMES, CHALLENGE_CLASS_IDS
from step.config import PoolMode, StepConfig, TemporalMode
from step.errors import StepError
from step.models.i3d import release_layer_names

# The release's scale_norm 2 is x * 2 / 255 - 1, the only one that its weights and this project use.
SCALE_NORM = 2
_MODULE_PREFIX = "module."


def config_of(content: dict[Any, Any], path: Path) -> StepConfig:
    """Reads the model config in a release checkpoint's `cfg`; fields it lacks are the released model's.

    Raises:
        StepError: no cfg, or a value that this project does not know.
    """
    cfg = content.get("cfg")
    if not isinstance(cfg, (argparse.Namespace, dict)):
        raise StepError(f"{path}: expected cfg to be a Namespace, got {type(cfg).__name__}; the model is not known")
    values = cfg if isinstance(cfg, dict) else vars(cfg)
    scale_norm = values.get("scale_norm", SCALE_NORM)
    if scale_norm != SCALE_NORM:
        raise StepError(f"{path}: cfg.scale_norm is {scale_norm!r}; only {SCALE_NORM} (x * 2 / 255 - 1) is supported")
    num_classes = _integer(values, "num_classes", 60, path)
    try:
        return StepConfig(
            image_size_px=_image_size(values, path),
            chunk_frames=_integer(values, "T", 3, path),
            chunks=_chunks(values, content, path),
            num_classes=num_classes,
            class_ids=class_ids_of(num_classes),
            anchor_mode=_integer(values, "anchor_mode", 1, path),
            temporal_mode=_temporal_mode(values),
            pool_mode=_pool_mode(values, path),
            pool_size=_integer(values, "pool_size", 7, path),
            fc_dim=_integer(values, "fc_dim", 256, path),
            context=not values.get("no_context", False),
        )
    except StepError as error:
        raise StepError(f"{path}: {error}") from error


def state_of(content: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    """Returns every network's parameters under our names.

    Raises:
        StepError: a network that is no dict of tensors.
    """
    layers = release_layer_names()
    state: dict[str, Tensor] = {}
    for net in content:
        if net == "base_net":
            rename = [(rf"^base_model\.{index}\.", f"backbone.{name}.") for index, name in layers.items()]
        elif net == "context_net":
            rename = [
                (r"^i3d_conv_context\.1\.", "context.mixed_5b."),
                (r"^i3d_conv_context\.2\.", "context.mixed_5c."),
            ]
        elif isinstance(net, str) and (match := re.fullmatch(r"det_net(\d+)", net)):
            head = f"heads.{match[1]}."
            rename = [(r"^i3d_conv\.0\.", f"{head}mixed_5b."), (r"^i3d_conv\.1\.", f"{head}mixed_5c."), (r"^", head)]
        else:
            continue
        tensors = content[net]
        if not isinstance(tensors, dict):
            raise StepError(f"{path}: expected {net} to be a dict of tensors, got {type(tensors).__name__}")
        for key, value in tensors.items():
            state[_renamed(str(key), rename)] = _linear(str(key), value)
    return state


def _renamed(key: str, rename: list[tuple[str, str]]) -> str:
    plain = key.removeprefix(_MODULE_PREFIX)
    for pattern, replacement in rename:
        renamed, count = re.subn(pattern, replacement, plain, count=1)
        if count:
            return renamed
    return key  # left as it is, so that the error names it as the file does


def _linear(key: str, value: Tensor) -> Tensor:
    """The release writes its classifier as a 1x1x1 convolution; ours is a linear layer."""
    if key.endswith("global_cls.weight") and isinstance(value, Tensor) and value.dim() == 5:
        return value.flatten(1)
    return value


def _integer(values: dict[str, Any], name: str, default: int, path: Path) -> int:
    value = values.get(name, default)
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise StepError(f"{path}: cfg.{name} is {value!r}; expected a whole number") from error


def _image_size(values: dict[str, Any], path: Path) -> int:
    """`image_size` may be 400, "400", "400,400" or (400, 400)."""
    value = values.get("image_size", 400)
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (tuple, list)) else [value]
    try:
        sides = {int(part) for part in parts}
    except (TypeError, ValueError, OverflowError) as error:
        raise StepError(f"{path}: cfg.image_size is {value!r}; expected a number of pixels") from error
    if len(sides) != 1:
        raise StepError(f"{path}: cfg.image_size is {value!r}; only square frames are supported")
    return sides.pop()


def _chunks(values: dict[str, Any], content: dict[Any, Any], path: Path) -> tuple[int, ...]:
    """`NUM_CHUNKS` maps step (from 1) to chunks; `max_iter` says how many steps there are."""
    heads = sum(1 for net in content if isinstance(net, str) and re.fullmatch(r"det_net\d+", net))
    steps = _integer(values, "max_iter", heads, path)
    if steps != heads:
        raise StepError(f"{path}: cfg.max_iter is {steps} but the file holds {heads} heads (det_net0..); truncated?")
    chunks = values.get("NUM_CHUNKS", {1: 1, 2: 1, 3: 3, 4: 3})
    try:
        by_step = {int(step): int(count) for step, count in dict(chunks).items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise StepError(f"{path}: cfg.NUM_CHUNKS is {chunks!r}; expected a dict of step to chunks") from error
    if any(step not in by_step for step in range(1, steps + 1)):
        raise StepError(f"{path}: cfg.NUM_CHUNKS is {chunks!r}; it must name steps 1 to {steps}")
    return tuple(by_step[step] for step in range(1, steps + 1))


def class_ids_of(num_classes: int) -> tuple[int, ...]:
    """Returns the ids of the release's score columns, which its cfg does not name."""
    if num_classes == len(CHALLENGE_CLASS_IDS):
        return CHALLENGE_CLASS_IDS
    if num_classes == len(AVA_CLASS_NAMES):
        return tuple(AVA_CLASS_NAMES)
    return tuple(range(1, num_classes + 1))


def _temporal_mode(values: dict[str, Any]) -> TemporalMode:
    mode = values.get("temporal_mode", "predict")
    if mode == "predict":
        return "predict"
    return "extrapolate" if mode == "extrapolate" else "mean"  # "anything else: the mean box repeated" (SPEC)


def _pool_mode(values: dict[str, Any], path: Path) -> PoolMode:
    mode = values.get("pool_mode", "align")
    if mode == "align":
        return "align"
    if mode == "pool":
        return "pool"
    raise StepError(f"{path}: cfg.pool_mode is {mode!r}; expected align or pool")
