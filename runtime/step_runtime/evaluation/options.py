"""Holds what `step-eval` was asked for, and refuses options that do not go together."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click

from step.bundles.manifest import no_such_model
from step.checkpoints.toy_model import find_bundle
from step.data.dataset_folder import DatasetFolder
from step.evaluation.scoring import FramesWithoutTruth, Score, ScoringOptions, score_files
from step.reporter import Reporter
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BackendName, check_device
from step_runtime.batch.ava_results import write_ava_results
from step_runtime.detector import Detector


@dataclass(frozen=True, kw_only=True)
class ResultsScorer:
    """Knows what results are scored against, and how."""

    truth: Path
    label_map: Path | None
    exclude: Path | None
    options: ScoringOptions

    def score(self, results: Path) -> Score:
        """Scores a csv, or the output folder of step-batch."""
        if results.is_dir():
            with tempfile.TemporaryDirectory(prefix="step-eval-") as scratch:
                rows = Path(scratch) / "results.csv"
                write_ava_results(results, rows)
                return self.score(rows)
        return score_files(results, self.truth, label_map=self.label_map, exclude=self.exclude, options=self.options)


@dataclass(frozen=True)
class EvalCommand:
    """Holds what was typed; see `step-eval --help`."""

    results: Path | None
    truth: Path | None
    model: Path | None
    data: Path | None
    split: str
    backend: str
    loop: str | None
    steps: int | None
    every_step: bool
    device: str
    label_map: Path | None
    exclude: Path | None
    cap: int | None
    frames_without_truth: str
    ious: tuple[float, ...]
    video_map: bool
    json_file: Path | None
    csv_file: Path | None
    html_file: Path | None

    @property
    def scoring(self) -> ScoringOptions:
        """Returns how results are scored."""
        frames_without_truth = cast(FramesWithoutTruth, self.frames_without_truth)
        return ScoringOptions(ious=self.ious, cap=self.cap, frames_without_truth=frames_without_truth)

    @property
    def outputs(self) -> dict[str, Path | None]:
        """Returns the files to write, by option."""
        outputs = {"--json": self.json_file, "--csv": self.csv_file, "--html": self.html_file}
        return outputs if self.model is None else outputs | {"--results": self.results}

    def check(self) -> None:
        """Refuses options that do not go together.

        Raises:
            click.UsageError: which, and what to give instead.
            StepError: no such model or device.
        """
        if self.data is not None and self.truth is not None:
            raise click.UsageError(f"--data {self.data} holds the ground truth; give no --truth")
        if self.model is None and (self.results is None or (self.truth is None and self.data is None)):
            raise click.UsageError("give --results and --truth, or --model and --data")
        if self.model is not None and self.data is None:
            raise click.UsageError("--model runs on --data, a folder that holds the ground truth; give it")
        if self.model is None and (self.every_step or self.steps is not None):
            raise click.UsageError("--steps and --every-step need a model that is run; give --model and --data")
        if self.every_step and self.loop == "fused":
            raise click.UsageError("--every-step needs the graph of each step; leave out --loop fused")
        check_device(self.device)
        if self.model is not None and not find_bundle(self.model).exists():
            raise no_such_model(self.model)

    def scorer(self, folder: DatasetFolder | None, scoring: ScoringOptions) -> ResultsScorer:
        """Returns what results are scored against.

        Args:
            folder: of --data; None where --truth is given.
            scoring: how.
        """
        truth, label_map, exclude = self.truth, self.label_map, self.exclude
        if folder is not None:
            truth, label_map, exclude = folder.truth, label_map or folder.label_map, exclude or folder.exclude
        assert truth is not None
        return ResultsScorer(truth=truth, label_map=label_map, exclude=exclude, options=scoring)

    def open(self, reporter: Reporter, *, loop: Loop | None, num_steps: int | None) -> Detector:
        """Loads the model; which backends were skipped for another is a detail."""
        assert self.model is not None
        return Detector.open(
            self.model,
            cast(BackendName, self.backend),
            loop=loop,
            num_steps=num_steps,
            device=self.device,
            skipped=lambda name, reason: reporter.detail(f"{name} skipped: {reason}"),
        )
