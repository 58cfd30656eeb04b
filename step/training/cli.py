"""`step-train detect|classify`: trains a detector, or pre-trains its classifier."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

from step.cli import OneLineCommand, OneLineGroup, examples, find_reporter, takes
from step.errors import StepError
from step.files.atomic import atomic_path, cannot_write
from step.files.locks import sole_writer
from step.parameters import Choice, FilePath, OrWord, Whole
from step.training.config import TrainingConfig, read_config
from step.training.yaml_file import parse_yaml, write_yaml

_PATH = FilePath()


@click.group(
    cls=OneLineGroup,
    epilog=examples(
        "step-train detect toy_detect.yaml --data build/toy -o runs/toy",
        "step-train classify ava_classify.yaml --data ava -o runs/classifier",
    ),
)
def main() -> None:
    """Trains STEP on AVA and data sets of its form.

    On several GPUs or machines, start it with torchrun: torchrun --nproc-per-node 4 -m step.training.cli detect ...
    """


@dataclass(frozen=True)
class TrainCommand:
    """Holds what was typed; see `step-train detect --help`."""

    config: str
    data: Path | None
    output: Path | None
    resume: str | None
    changes: tuple[str, ...]
    release_format: bool
    dry_run: bool
    accelerator: str
    devices: int | None

    def config_changes(self) -> dict[str, Any]:
        """Returns the values that replace the config's, by dotted name.

        Raises:
            StepError: a --set that is no KEY=VALUE, or whose value is no YAML.
        """
        changes: dict[str, Any] = {}
        for pair in self.changes:
            name, separator, value = pair.partition("=")
            if not separator or not name:
                raise StepError(f"--set {pair}: give KEY=VALUE, such as optimizer.batch=4")
            try:
                changes[name] = parse_yaml(value)
            except ValueError as error:
                raise StepError(
                    f"--set {pair}: {value!r} is no YAML value; give KEY=VALUE, a list as [7,10]"
                ) from error
        return changes | ({} if self.data is None else {"data.folder": str(self.data)})


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds what both commands take."""
    for option in reversed(
        (
            click.argument("config"),
            click.option("--data", type=_PATH, help="Folder of the data set, in place of the config's data.folder."),
            click.option("-o", "--output", type=_PATH, help="Folder for checkpoints, log and results."),
            click.option(
                "--resume", metavar="auto|best|PATH", help="Go on from the latest or best checkpoint of -o, or a file."
            ),
            click.option(
                "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace a value: optimizer.batch=4."
            ),
            click.option(
                "--release-format", is_flag=True, help="Write the best model as the authors' code reads it, too."
            ),
            click.option("--dry-run", is_flag=True, help="Say what memory an update takes, and end."),
            click.option("--accelerator", type=Choice(["auto", "cpu", "cuda"]), default="auto", help="What trains."),
            click.option(
                "--devices",
                type=OrWord(Whole(1), "auto"),
                default="auto",
                metavar="N|auto",
                help="How many; torchrun says it itself.",
            ),
        )
    ):
        command = option(command)
    return command


@main.command(
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-train detect toy_detect.yaml --data build/toy -o runs/toy",
        "step-train detect ava_detect.yaml --data ava -o runs/ava --resume auto",
        "step-train detect ava_detect.yaml --data ava --set optimizer.batch=2 --dry-run",
    ),
)
@_options
@takes(TrainCommand)
def detect(command: TrainCommand) -> None:
    """Trains a detector as CONFIG says: a YAML file, or the name of one that comes with the package."""
    _run("detect", command)


@main.command(
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-train classify ava_classify.yaml --data ava -o runs/classifier",
        "step-train classify ava_classify.yaml --data ava -o runs/classifier --resume auto",
    ),
)
@_options
@takes(TrainCommand)
def classify(command: TrainCommand) -> None:
    """Trains the action scores alone, on boxes around the ground truth, as CONFIG says.

    A detector begins from the result: model.classifier.
    """
    _run("classify", command)


def _run(kind: str, command: TrainCommand) -> None:
    config = read_config(command.config, kind=kind, changes=command.config_changes())
    if command.dry_run:
        _print_memory(config)
    elif command.output is None:
        raise click.UsageError("Missing option -o; name a folder for checkpoints, log and results")
    else:
        _train(config, command.output, command)


def _print_memory(config: TrainingConfig) -> None:
    from step.training.memory import estimate_memory

    found = estimate_memory(config)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(f"memory of an update of {config.optimizer.batch} clips, {config.precision}")
    table.add_column("GiB", justify="right")
    for name, value in vars(found).items():
        table.add_row(name, f"{value / 2**30:.2f}")
    table.add_row("at least", f"{found.total / 2**30:.2f}")
    find_reporter().result(table)


def _train(config: TrainingConfig, output: Path, command: TrainCommand) -> None:
    try:
        from lightning_fabric import seed_everything

        from step.checkpoints.release_writer import release_content
        from step.models.detector import StepDetector
        from step.training import run_checkpoints as checkpoint
        from step.training.fabric import open_fabric
        from step.training.samples.training_data import open_data
        from step.training.trainer import Trainer
    except ModuleNotFoundError as error:
        raise StepError(f"training needs {error.name}; install it with: pip install 'step-trt[train]'") from error
    reporter = find_reporter()
    if output.exists() and not output.is_dir():
        raise StepError(f"-o {output}: is a file; name a folder")
    if command.resume is None and checkpoint.numbered(output / "checkpoints"):
        raise StepError(f"-o {output}: holds a run already; go on with --resume auto, or name a new folder")
    start = None if command.resume is None else checkpoint.find(command.resume, output / "checkpoints")
    seed_everything(config.seed, verbose=False)
    if config.deterministic:
        _be_deterministic()
    fabric = open_fabric(command.accelerator, command.devices or "auto", config.precision)
    if not fabric.is_global_zero:
        reporter.verbosity = "quiet"  # the first of several processes speaks for all
    with contextlib.ExitStack() as held:
        if fabric.is_global_zero:
            try:
                held.enter_context(sole_writer(output))
            except OSError as error:
                raise cannot_write(output, error) from error
        with reporter.progress("decoding clips", unit="clips") as progress:
            parts = open_data(config, progress=progress.update)
        if command.release_format:
            release_content(StepDetector.from_config(config.step_config()))  # that it can be, before hours of training
        trainer = Trainer(config=config, data=parts, folder=output, fabric=fabric, reporter=reporter, start=start)
        if fabric.is_global_zero:
            with atomic_path(output / "config.yaml") as path:
                write_yaml(config.model_dump(mode="json"), path)
        scores = trainer.run()
        means = ", ".join(f"step {step} {score.mean_ap(0.5):.4f}" for step, score in scores.items())
        if fabric.is_global_zero:
            model = _write_models(output, release_format=command.release_format)
            reached = trainer.progress
            last = next(reversed(checkpoint.numbered(output / "checkpoints")), start)
            reporter.result(f"last: epoch {reached.epoch}, frame-mAP@0.5 {means}: {last}")
            epoch = "" if reached.best_epoch is None else f"epoch {reached.best_epoch}, "
            reporter.result(f"best: {epoch}frame-mAP@0.5 {reached.best:.4f}: {model}")


def _be_deterministic() -> None:
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which CUDA's products ask for
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())


def _write_models(output: Path, *, release_format: bool) -> Path:
    """Writes the best model without what training goes on from; returns the file in our own format."""
    from step.checkpoints.own_format import load_checkpoint, save_checkpoint, write_torch_file
    from step.checkpoints.release_writer import release_content
    from step.training.run_checkpoints import BEST

    model = load_checkpoint(output / "checkpoints" / BEST)
    save_checkpoint(model, output / "model.pth")
    if release_format:
        write_torch_file(release_content(model), output / "model_release.pth")
    return output / "model.pth"


if __name__ == "__main__":
    main()
