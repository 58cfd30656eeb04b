"""The training loop, on one device or many.

Source: SPEC.md, "Training (detection)"; Lightning Fabric for devices, precision and distribution.
"""

import json
import math
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from step.checkpoints.state import check_finite
from step.errors import StepError
from step.evaluation.scoring import Score
from step.files.atomic import atomic_path
from step.models.detector import StepDetector
from step.reporter import Reporter
from step.training import run_checkpoints as checkpoint
from step.training.config import TrainingConfig
from step.training.evaluation import EvaluationOptions, Shard, evaluate
from step.training.initialise import build_detector, freeze
from step.training.objectives.classification import ClassificationTask, classified_rows
from step.training.objectives.detection import DetectionTask, SelectionOptions
from step.training.objectives.losses import StepLosses
from step.training.run_checkpoints import TrainingProgress
from step.training.run_log import RunLog
from step.training.samples.batch import Batch
from step.training.samples.clips import EpochBatches, batches_of_epoch
from step.training.samples.loading import affordable_workers, load_batches
from step.training.samples.training_data import TrainingData
from step.training.schedule import LearningRates, cosine_factor, parameter_groups
from step.training.validation_images import sample_images


class Trainer:
    """Trains one run.

    Args:
        config: what is trained, on what, how.
        data: see `open_data`.
        folder: for checkpoints, log and results.
        fabric: launched.
        reporter: says how far the run is.
        start: checkpoint to go on from; None to begin.

    Raises:
        StepError: fewer clips than an update takes, weights that cannot be had, or see `checkpoint.read_training`.
    """

    def __init__(
        self,
        *,
        config: TrainingConfig,
        data: TrainingData,
        folder: Path,
        fabric: Fabric,
        reporter: Reporter,
        start: Path | None = None,
    ) -> None:
        self.config, self.data, self.folder, self.fabric, self.reporter = config, data, folder, fabric, reporter
        self.checkpoints = folder / "checkpoints"
        self.progress = TrainingProgress()
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", fabric.world_size))  # which share this machine
        wanted = 0 if config.data.cache else config.data.workers
        self.workers = affordable_workers(wanted, processes=processes, say=reporter.note)
        options = config.optimizer
        self.per_epoch = batches_of_epoch(len(data.train), batch=options.batch, world=fabric.world_size)
        if self.per_epoch < options.accumulate:
            raise StepError(
                f"{len(data.train)} training clips are fewer than one update takes: optimizer.batch {options.batch} x "
                f"{fabric.world_size} processes x optimizer.accumulate {options.accumulate}; lower one of them"
            )
        self.total = self.per_epoch // options.accumulate * options.epochs
        torch.manual_seed(config.seed)
        self.detector = build_detector(config, resumed=start is not None)
        self.detector.train()
        self.detector.backbone.checkpointing = config.checkpointing
        freeze(self.detector, norm=config.model.freeze_norm, backbone=config.model.freeze_backbone)
        if config.compile:
            self.detector.backbone.compile()
            for head in self.detector.heads:
                head.compile()
        task = self._task()
        rates = LearningRates(backbone=options.backbone_rate, context=options.context_rate, heads=options.head_rate)
        groups = parameter_groups(self.detector, rates, weight_decay=options.weight_decay)
        self.full_rates = [group["lr"] for group in groups]
        self.task, self.optimizer = fabric.setup(task, torch.optim.Adam(groups))
        self.average = None
        if options.ema is not None:
            rule = get_ema_multi_avg_fn(options.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.detector, multi_avg_fn=rule)  # buffers are the last ones
        if start is not None:
            self._resume(start)

    def _task(self) -> nn.Module:
        config = self.config
        if config.kind == "classify":
            return ClassificationTask(detector=self.detector, seed=config.seed, mean_counts=self._mean_counts)
        selection = SelectionOptions(**config.selection.model_dump())
        return DetectionTask(detector=self.detector, options=selection, seed=config.seed, mean_counts=self._mean_counts)

    @property
    def model(self) -> StepDetector:
        """Returns what is evaluated and saved."""
        if self.average is None:
            return self.detector
        averaged = self.average.module
        assert isinstance(averaged, StepDetector)
        return averaged

    def _resume(self, path: Path) -> None:
        state = checkpoint.read_training(path, self.config)
        if state["world"] != self.fabric.world_size:
            raise StepError(
                f"{path}: is of a run of {state['world']} processes, this one has {self.fabric.world_size}; "
                "resume with as many"
            )
        for part in ("weights", "average"):
            check_finite(state.get(part) or {}, source=path)
        self.detector.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])  # the scale of the loss
        self.progress = state["progress"]
        if self.fabric.is_global_zero:
            checkpoint.forget_after(self.checkpoints, self.progress.update)
        self.fabric.barrier()
        if not (self.checkpoints / checkpoint.BEST).is_file():
            self.progress = replace(self.progress, best=-1.0, best_epoch=None)  # the best of this folder is to come

    def run(self) -> dict[int, Score]:
        """Trains to the end; returns the scores of the last evaluation, by step.

        Raises:
            StepError: a loss that is no number, memory that does not suffice, or nowhere to write.
        """
        log = RunLog(
            self.folder,
            total=self.total,
            done=self.progress.update,
            reporter=self.reporter,
            is_first=self.fabric.is_global_zero,
        )
        try:
            with log:
                return self._run(log)
        except torch.OutOfMemoryError as error:
            raise StepError(
                f"the device's memory does not suffice for optimizer.batch {self.config.optimizer.batch}; lower it and "
                "raise optimizer.accumulate, or set checkpointing"
            ) from error

    def _run(self, log: RunLog) -> dict[int, Score]:
        scores: dict[int, Score] = {}
        log.note(versions=checkpoint.versions(), config=self.config.model_dump(mode="json"))
        while self.progress.epoch < self.config.optimizer.epochs:
            self._run_epoch(log)
            epoch = self.progress.epoch + 1
            self.progress = replace(self.progress, epoch=epoch, batch=0)
            if epoch % self.config.evaluate_every == 0 or epoch == self.config.optimizer.epochs:
                scores = self._evaluate(log)
            self._save_numbered()
        return scores or self._evaluate(log)  # a run that had ended before is scored again

    def _save_numbered(self) -> None:
        self.save(f"{self.progress.update:07d}.pth")
        if self.fabric.is_global_zero:
            checkpoint.prune(self.checkpoints, keep=self.config.keep)

    def save(self, name: str) -> None:
        """Writes a checkpoint; the first of several processes does."""
        if self.fabric.is_global_zero:
            state: dict[str, Any] = {
                "weights": self.detector.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "world": self.fabric.world_size,
            }
            if self.average is not None:
                state["average"] = self.average.state_dict()
            checkpoint.save(self.checkpoints, name, self.model, self.config, self.progress, state)
        self.fabric.barrier()

    def _run_epoch(self, log: RunLog) -> None:
        options, progress = self.config.optimizer, self.progress
        self.data.train.epoch = progress.epoch
        order = EpochBatches(
            count=len(self.data.train),
            batch=options.batch,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            seed=self.config.seed,
            epoch=progress.epoch,
            first=progress.batch,
        )
        pin_memory = self.fabric.device.type == "cuda"
        batches = load_batches(self.data.train, order, workers=self.workers, pin_memory=pin_memory)
        began_s = time.monotonic()
        for group in _groups(batches, options.accumulate):
            waited_s = time.monotonic() - began_s
            losses = self.update(group)
            progress = self.progress
            self.progress = replace(progress, batch=progress.batch + len(group), update=progress.update + 1)
            rate = self._factor(progress.update) * options.head_rate
            log.losses(self.progress.update, progress.epoch, rate, losses, waited_s=waited_s)
            if self.config.save_every is not None and self.progress.update % self.config.save_every == 0:
                self._save_numbered()
            began_s = time.monotonic()

    def _factor(self, update: int) -> float:
        return cosine_factor(update, warmup=self.config.optimizer.warmup, total=self.total)

    def update(self, batches: list[Batch]) -> list[list[float]]:
        """Takes one step of the optimizer; returns the losses of the last batch, by step.

        Raises:
            StepError: a loss that is no number.
        """
        # Dropout depends on the update and the process alone, so that a resumed run needs no random state.
        torch.manual_seed(zlib.crc32(f"{self.config.seed} {self.progress.update} {self.fabric.global_rank}".encode()))
        factor = self._factor(self.progress.update)
        for group, rate in zip(self.optimizer.param_groups, self.full_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad()
        values: list[list[float]] = []
        for number, batch in enumerate(batches):
            is_last = number == len(batches) - 1
            with self.fabric.no_backward_sync(self.task, enabled=not is_last):
                losses = self.task(batch.to(self.fabric.device).with_colours_changed(), self.progress.epoch)
                # one copy from the device
                values = torch.stack([torch.stack(tuple(each)) for each in losses]).detach().tolist()
                self._check(values, batch)
                steps = len(losses) if self.config.precision == "fp16" else 1  # SPEC: keeps half within its range
                total = torch.stack([each.total for each in losses]).sum()
                self.fabric.backward(total / (steps * len(batches)))
        if self.config.optimizer.clip_norm is not None:
            norm = self.fabric.clip_gradients(
                self.task, self.optimizer, max_norm=self.config.optimizer.clip_norm, error_if_nonfinite=False
            )
            # a scaled loss may be too large for half, whose scaler then leaves the update out
            if self.config.precision != "fp16" and norm is not None and not bool(norm.isfinite()):
                raise self._not_finite("gradient of all losses", float(norm), {}, batches[-1])
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.detector)
        return values

    def _check(self, losses: list[list[float]], batch: Batch) -> None:
        """Ends the run at a loss that is no number."""
        for step, each in enumerate(losses, 1):
            for name, value in zip(StepLosses._fields, each, strict=True):
                if not math.isfinite(value):
                    raise self._not_finite(f"{name} loss of step {step}", value, {"step": step, "loss": name}, batch)

    def _not_finite(self, what: str, value: float, place: dict[str, Any], batch: Batch) -> StepError:
        """Writes down which clips gave it; returns the error to raise."""
        report = self.folder / "not_finite.json"
        where = {"update": self.progress.update, "epoch": self.progress.epoch, **place, "clips": batch.ids}
        with atomic_path(report) as path:
            path.write_text(json.dumps(where, indent=2) + "\n")
        return StepError(
            f"the {what} is {value} at update {self.progress.update}; its clips are in {report}; lower the rates or "
            "set optimizer.clip_norm"
        )

    def _evaluate(self, log: RunLog) -> dict[int, Score]:
        training = [module for module in self.model.modules() if module.training]
        options = EvaluationOptions(
            batch=self.config.optimizer.batch,
            workers=self.workers,
            shard=Shard(self.fabric.global_rank, self.fabric.world_size, self.fabric.barrier),
            rows_of=classified_rows if self.config.kind == "classify" else None,
        )
        results = self.folder / "results"
        scores = evaluate(self.model, self.data.val, self.data.truth, results, options=options, progress=log.evaluating)
        for module in training:
            module.training = True
        log.scores(self.progress.update, self.progress.epoch - 1, scores)
        if self.fabric.is_global_zero:
            last = scores[max(scores)]
            image = sample_images(self.data.val, last.detections.table, last.names)
            log.image("validation", image, self.progress.update)
        mean_ap = scores[max(scores)].mean_ap(0.5)
        if mean_ap > self.progress.best:
            self.progress = replace(self.progress, best=mean_ap, best_epoch=self.progress.epoch)
            self.save(checkpoint.BEST)
        return scores

    def _mean_counts(self, counts: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return counts
        mean = self.fabric.all_reduce(counts, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean


def _groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yields groups of so many batches; fewer at the end are left out."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
