"""Updates of the trainer on clips in memory: time, peak memory beside the estimate, gradients that are numbers.

torchvision has to be loadable before this is imported (`tests/torchvision_on_cpu.py`).
Shape legend: B clips, F frames of a clip, M people of a clip.
"""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from gpu_check.models import random_clips
from gpu_check.stage import Device, Report
from gpu_check.timing import Timer
from step.errors import StepError
from step.reporter import Reporter
from step.training.config import Precision, TrainingConfig, read_config
from step.training.fabric import open_fabric
from step.training.memory import estimate_memory
from step.training.samples.batch import Batch, People
from step.training.samples.photometric import PhotometricChange, draw_distortion, draw_erased
from step.training.samples.training_data import TrainingData, open_data
from step.training.trainer import Trainer

TABLE = "an update of the full-size detector"
_SCALER_TRIES = 16  # of fp16, whose loss scale is halved at each update that was too large
_SMALL: dict[str, Any] = {
    "model": {"image_size_px": 48, "width": 0.06, "fc_dim": 8, "chunks": [1]},
    "selection": {"positive_iou": [0.2], "regression_iou": [0.2], "max_positives": 1, "negatives_per_positive": 1},
}


@dataclass(frozen=True)
class Plan:
    """Says how a row is measured.

    Attributes:
        device: where.
        warm_up, updates: how many before, and how many are timed.
        work: for the run's files.
    """

    device: Device
    warm_up: int
    updates: int
    work: Path


def full_size_config(precision: Precision, batch: int, *, data: Path, device: Device) -> TrainingConfig:
    """Reads `ava_detect.yaml` for another data set, from random weights; without a GPU the smallest model."""
    changes = {"precision": precision, "optimizer.batch": batch, "data.folder": str(data), "model.classifier": None}
    return read_config("ava_detect.yaml", kind="detect", changes=(_SMALL if device == "none" else {}) | changes)


def measure_updates(report: Report, row: str, config: TrainingConfig, plan: Plan) -> None:
    """Measures one row: time, peak memory, the estimate and the ratio of the two.

    A card that is full is text in the row, and a problem only where the estimate says that it should have sufficed.
    """
    estimate_bytes = estimate_memory(config).total
    report.figure(row, estimate_bytes / 2**30, "estimate GiB", table=TABLE)
    free_bytes = _empty_memory(plan.device)
    problem = ""
    try:
        problem = _measure(report, row, config, plan)
    except torch.OutOfMemoryError:
        report.figure(row, "out of memory", "median ms", table=TABLE)
        if estimate_bytes < free_bytes:
            problem = f"out of memory with {free_bytes / 2**30:.1f} GiB free"
    except (RuntimeError, StepError) as error:
        problem = str(error)
    if problem:
        report.problem(f"{row}: {problem}")


def _measure(report: Report, row: str, config: TrainingConfig, plan: Plan) -> str:
    """Adds the row's figures; returns what is wrong with the gradients, or nothing."""
    fabric = open_fabric("cuda" if plan.device == "cuda" else "cpu", "1", config.precision)
    trainer = _trainer(config, fabric, open_data(config), plan.work)
    batch = _random_batch(config)
    if plan.device == "cuda":
        batch = batch.pin_memory()
    losses = trainer.update([batch])
    report.figure(row, sum(map(sum, losses)), "first loss", table=TABLE)
    least = plan.warm_up - 1
    for number in range(least + (_SCALER_TRIES if config.precision == "fp16" else 1)):
        if number >= least and not _gradient_problem(trainer):
            break
        trainer.update([batch])
    times = Timer(plan.device).time(lambda: trainer.update([batch]), runs=plan.updates, warm_up=0)
    report.figure(row, times.median_ms, "median ms", table=TABLE)
    report.figure(row, 1e3 * config.optimizer.batch / times.median_ms, "clips/s", table=TABLE)
    if plan.device == "cuda":
        peak_bytes = torch.cuda.max_memory_allocated()
        report.figure(row, peak_bytes / 2**30, "peak GiB", table=TABLE)
        report.figure(row, torch.cuda.max_memory_reserved() / 2**30, "reserved GiB", table=TABLE)
        report.figure(row, peak_bytes / estimate_memory(config).total, "peak of estimate", table=TABLE)
    if config.precision == "fp16":
        scale = fabric.strategy.precision.state_dict().get("scale", 0.0)
        report.figure(row, float(scale), "loss scale", table=TABLE)
    return _gradient_problem(trainer)


def _trainer(config: TrainingConfig, fabric: Fabric, data: TrainingData, work: Path) -> Trainer:
    folder, reporter = work / "updates", Reporter("quiet")
    return Trainer(config=config, data=data, folder=folder, fabric=fabric, reporter=reporter)


def _gradient_problem(trainer: Trainer) -> str:
    gradients = [each.grad for each in trainer.detector.parameters() if each.grad is not None]
    if not gradients:
        return "no parameter has a gradient"
    largest = torch.stack([gradient.abs().amax() for gradient in gradients]).amax().item()
    if largest == 0:
        return "every gradient is 0"
    return "" if largest < float("inf") else f"a gradient is {largest}"  # also NaN, which is below nothing


def _random_batch(config: TrainingConfig) -> Batch:
    """Makes moving noise with people in it, whose colours change as those of the release's training clips."""
    torch.manual_seed(0)
    shape, count = config.step_config(), config.optimizer.batch
    frames = torch.from_numpy(random_clips(shape, count))  # [B, F, H, W, 3]
    # as many people as positives are selected at most, which is what the estimate counts
    number = config.selection.max_positives
    people = [_random_people(number, shape.image_size_px, shape.num_classes) for _ in range(count)]
    photometric = [
        PhotometricChange(
            draw_distortion(clip.permute(0, 3, 1, 2)), draw_erased(each.boxes_px, image_size_px=shape.image_size_px)
        )
        for clip, each in zip(frames, people, strict=True)
    ]
    return Batch(frames, people, [("random", number) for number in range(count)], photometric)


def _random_people(count: int, size_px: int, num_classes: int) -> People:
    """Makes M boxes of a fifth to a half of the frame, each with one action, that drift a little each second."""
    extent = size_px * torch.empty(count, 2).uniform_(0.2, 0.5)
    corner = torch.rand(count, 2) * (size_px - extent)
    boxes_px = torch.cat((corner, corner + extent), dim=1)
    labels = torch.zeros(count, num_classes)
    labels[torch.arange(count), torch.randint(0, num_classes, (count,))] = 1
    drift_px = size_px * torch.empty(count, 2, 1).uniform_(-0.02, 0.02)
    neighbour_px = (boxes_px[:, None] + drift_px).clamp(0, size_px)
    return People(boxes_px, labels, neighbour_px, torch.ones(count, 2, dtype=torch.bool))


def _empty_memory(device: Device) -> int:
    """Counts the bytes that are free when what earlier rows left is gone; it has no meaning on a CPU."""
    gc.collect()
    if device == "none":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.mem_get_info()[0]
