"""The models, bundles and data that stages share: whoever needs one first makes it, in the folder `work`.

`python -m gpu_check.models DEVICE WORK MODEL PRECISION` exports one bundle, for stages that export several at once.
"""

import sys
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from filelock import FileLock
from helpers import ONE_STEP, make_detector
from numpy.typing import NDArray
from step_export.bundle_writer import ExportSettings, export_bundle
from torch import nn

from gpu_check.stage import Device
from step import StepConfig, StepDetector, save_checkpoint
from step.bundles.graph_spec import Precision
from step.checkpoints.toy_model import CHECKPOINT
from step.data.toy.toy import generate_frames

Model = Literal["full", "toy"]
"""The release's architecture with random weights, and the packaged model; without a GPU both are the least there is."""

_BOX_SHARE = 0.05
_TOY_VIDEOS: dict[Device, dict[str, int]] = {"cuda": {"train": 48, "val": 6}, "none": {"train": 2, "val": 1}}


def find_checkpoint(model: Model, work: Path, device: Device) -> Path:
    """Finds or makes a checkpoint of the model."""
    if model == "toy" and device == "cuda":
        return CHECKPOINT
    path = work / f"full-{device}.pth"
    with FileLock(work / f"full-{device}.lock"):
        if not path.exists():
            save_checkpoint(_lively_detector(StepConfig() if device == "cuda" else ONE_STEP), path)
    return path


def find_bundle(model: Model, precision: Precision, work: Path, device: Device) -> Path:
    """Finds or exports the model's bundle: the fused graph and those of the step loop, for any batch."""
    name = bundle_name(model, precision, device)
    checkpoint = find_checkpoint(model, work, device)
    with FileLock(work / f"{name}.lock"):
        if not (work / name).exists():  # it appears when it is whole
            export_bundle(checkpoint, work / name, ExportSettings(precision=precision, verify=False))
    return work / name


def bundle_name(model: Model, precision: Precision, device: Device) -> str:
    """Names the folder in `work`."""
    return f"{model if device == 'cuda' else 'least'}-{device}-{precision}"


def find_toy_data(work: Path, device: Device) -> Path:
    """Finds or makes toy AVA as extracted frames, splits "train" and "val"."""
    folder = work / f"toy-data-{device}"
    with FileLock(work / f"{folder.name}.lock"):
        if not folder.exists():
            generate_frames(folder, videos=_TOY_VIDEOS[device])
    return folder


def random_clips(config: StepConfig, count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Makes coarse noise that moves, uint8 [count, F, H, W, 3]: neighbouring pixels and frames are alike."""
    state = np.random.RandomState(seed)
    size_px, cell_px = config.image_size_px, max(1, config.image_size_px // 25)
    cells = -(-size_px // cell_px) + config.clip_frames
    noise = state.randint(0, 256, (count, cells, cells, 3)).astype(np.uint8)
    images = noise.repeat(cell_px, axis=1).repeat(cell_px, axis=2)
    steps = [min(2 * frame, cell_px * config.clip_frames) for frame in range(config.clip_frames)]
    frames = [images[:, step : step + size_px, step : step + size_px] for step in steps]
    return np.ascontiguousarray(np.stack(frames, axis=1))


def _lively_detector(config: StepConfig) -> StepDetector:
    """Makes a detector whose signals neither fade nor grow: every BatchNorm has the statistics of one clip."""
    detector: StepDetector = make_detector(config)
    for module in detector.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = None  # the mean over all batches, of which there is one
            module.reset_running_stats()
            module.train()
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "_reg" in name:
                # Boxes that stay near their anchors: one at the edge of being none would be decided by rounding.
                parameter.mul_(_BOX_SHARE)
        detector(torch.from_numpy(random_clips(config, 1, seed=1)))
    return detector.eval()


if __name__ == "__main__":
    _device, _work, _model, _precision = sys.argv[1:]
    find_bundle(cast(Model, _model), cast(Precision, _precision), Path(_work), cast(Device, _device))
