"""The toy model trained by `Trainer.run` for a while: updates a second, losses, how long it waited for data.

torchvision has to be loadable before this is imported (`tests/torchvision_on_cpu.py`).
"""

import json
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpu_check.stage import Device, Report
from step.errors import StepError
from step.reporter import Reporter
from step.training.config import TrainingConfig, read_config
from step.training.fabric import open_fabric
from step.training.samples.loading import load_batches
from step.training.samples.training_data import TrainingData, open_data
from step.training.trainer import Trainer

TABLE = "the toy model, toy_detect.yaml"
_TRIAL_UPDATES, _TRIAL_WARM_UP = 6, 3
_MOST_EPOCHS = 60
_SAFETY = 0.8  # of the time that is left
_ENDS = 8  # updates over which the losses at the start and at the end are means
_SMALL: dict[str, Any] = {
    "model": {"image_size_px": 48, "width": 0.06, "fc_dim": 8, "chunks": [1], "dropout": 0, "freeze_norm": False},
    "selection": {"positive_iou": [0.2], "regression_iou": [0.2], "max_positives": 1, "negatives_per_positive": 1},
    "optimizer.batch": 2,
    "optimizer.warmup": 2,
}


@dataclass(frozen=True)
class Run:
    """Describes one run.

    Attributes:
        row: of the table.
        workers: processes that load clips; 0 keeps them in memory, as the config says.
        seconds: how long it may take, evaluation included.
    """

    row: str
    workers: int
    seconds: float


def train_toy(report: Report, run: Run, *, data: Path, work: Path, device: Device) -> None:
    """Trains as many epochs as fit into the time, then evaluates."""
    start_s = time.monotonic()
    folder = work / f"toy-run-{run.workers}"
    shutil.rmtree(folder, ignore_errors=True)
    config = _config(run, data, device, epochs=1)
    clips = open_data(config)
    update_s = _trial_s(config, clips, folder, device)
    report.figure(run.row, 1e3 * update_s, "median ms", table=TABLE)
    per_epoch = len(clips.train) // config.optimizer.batch
    left_s = _SAFETY * (run.seconds - (time.monotonic() - start_s))
    epochs = min(max(int(left_s / (per_epoch * update_s)), 1), _MOST_EPOCHS)
    if device == "none":
        epochs = 4
    trainer = _trainer(_config(run, data, device, epochs=epochs), clips, folder, device)
    try:
        scores = trainer.run()
    except StepError as error:
        report.problem(f"{run.row}: {error}")
        return
    finally:
        _read_log(report, run.row, folder / "log.jsonl", config.optimizer.batch)
    report.figure(run.row, epochs, "epochs", table=TABLE)
    report.figure(run.row, scores[max(scores)].mean_ap(0.5), "mAP", table=TABLE)
    report.figure(run.row, time.monotonic() - start_s, "in all s", table=TABLE)


def _config(run: Run, data: Path, device: Device, *, epochs: int) -> TrainingConfig:
    """Reads `toy_detect.yaml`, scored once, at the end."""
    changes: dict[str, Any] = {"data.folder": str(data), "optimizer.epochs": epochs, "evaluate_every": epochs}
    if run.workers:
        changes |= {"data.cache": False, "data.workers": run.workers}
    if device == "none":
        changes |= _SMALL
    return read_config("toy_detect.yaml", kind="detect", changes=changes)


def _trainer(config: TrainingConfig, clips: TrainingData, folder: Path, device: Device) -> Trainer:
    fabric = open_fabric("cuda" if device == "cuda" else "cpu", "1", config.precision)
    return Trainer(config=config, data=clips, folder=folder, fabric=fabric, reporter=Reporter("quiet"))


def _trial_s(config: TrainingConfig, clips: TrainingData, folder: Path, device: Device) -> float:
    """Measures the median seconds of an update, on one batch."""
    trainer = _trainer(config, clips, folder, device)
    batch = next(load_batches(clips.train, [list(range(config.optimizer.batch))], workers=0))
    times_s = []
    for _ in range(_TRIAL_WARM_UP + _TRIAL_UPDATES):
        start_s = time.perf_counter()
        trainer.update([batch])
        if device == "cuda":
            torch.cuda.synchronize()
        times_s.append(time.perf_counter() - start_s)
    return statistics.median(times_s[_TRIAL_WARM_UP:])


def _read_log(report: Report, row: str, log: Path, batch: int) -> None:
    """Reads figures of `log.jsonl`, also of a run that was not finished."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    updates = [line for line in lines if "loss" in line]
    if len(updates) < 2:
        report.problem(f"{row}: {len(updates)} updates were made")
        return
    # the first update's own time is not in the log, but when it ended
    span_s = max(updates[-1]["time_s"] - updates[0]["time_s"], 1e-3)
    report.figure(row, len(updates), "updates", table=TABLE)
    report.figure(row, (len(updates) - 1) / span_s, "updates/s", table=TABLE)
    report.figure(row, batch * (len(updates) - 1) / span_s, "clips/s", table=TABLE)
    report.figure(row, 100 * sum(line["waited_s"] for line in updates[1:]) / span_s, "waited for data %", table=TABLE)
    totals = [sum(sum(each.values()) for each in line["loss"].values()) for line in updates]
    ends = min(_ENDS, len(totals) // 2)
    first, last = statistics.fmean(totals[:ends]), statistics.fmean(totals[-ends:])
    report.figure(row, first, "first loss", table=TABLE)
    report.figure(row, last, "last loss", table=TABLE)
    report.check(last < first, f"{row}: the loss did not fall: {first:.3g} at the start, {last:.3g} at the end")
