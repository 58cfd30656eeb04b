"""`step-bench`: every configuration of running a model, measured side by side."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from step.bundles.manifest import read_bundle
from step.checkpoints.toy_model import CHECKPOINT, NAME, find_checkpoint
from step.cli import OneLineCommand, OneLineGroup, find_reporter, progress_bar, takes
from step.config import StepConfig
from step.errors import StepError
from step.files.atomic import atomic_path, check_outputs
from step.shown import make_console
from step_runtime.backends.gpus import cuda_driver_is_present
from step_runtime.benchmark.configurations import BENCH_BACKENDS, CPU_BACKENDS, list_configurations
from step_runtime.benchmark.page import check_packages, write_page
from step_runtime.benchmark.results import Results, compare, differences
from step_runtime.benchmark.roofline.cli import roofline_command
from step_runtime.benchmark.rounds import MIN_RUNS, MIN_S, measure
from step_runtime.benchmark.tables import changes_table, markdown, problem_lines, results_table
from step_runtime.benchmark.toy_bundles import toy_bundles
from step_runtime.clips.sample_clips import sample_clips
from step_runtime.evaluation.open_data import open_data

_PATH = click.Path(path_type=Path)


class _RunByDefault(OneLineGroup):
    """`step-bench BUNDLE` means `step-bench run BUNDLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def main() -> None:
    """Measures every configuration of running a model, in rounds: step-bench BUNDLE..., or step-bench toy."""


@dataclass(frozen=True)
class BenchCommand:
    """What was typed; see `step-bench run --help`."""

    bundles: tuple[Path, ...]
    checkpoint: Path | None
    backends: str | None
    batches: str
    steps: str | None
    source: Path | None
    data: Path | None
    split: str
    device: str
    threads: int | None
    runs: int
    seconds: float
    baseline: str | None
    json_file: Path | None
    markdown_file: Path | None
    html_file: Path | None

    def check(self) -> None:
        """Refuses what can be refused before long work.

        Raises:
            StepError: an output that cannot be written, a missing package or checkpoint, or a value out of range.
        """
        check_outputs({"--json": self.json_file, "--markdown": self.markdown_file, "--html": self.html_file})
        if self.html_file is not None:
            check_packages("--html")
        if not self.seconds >= 0:
            raise StepError(f"--seconds is {self.seconds}; it must be at least 0")
        if self.checkpoint is not None and not find_checkpoint(self.checkpoint).is_file():
            raise StepError(f"--checkpoint {self.checkpoint}: no such file; give the .pth that was exported")
        _numbers("--batch", self.batches)
        if self.steps is not None:
            _numbers("--steps", self.steps)

    @property
    def wanted(self) -> list[str]:
        """Names of backends."""
        if self.backends is not None:
            return [name.strip() for name in self.backends.split(",")]
        return list(BENCH_BACKENDS if cuda_driver_is_present() else CPU_BACKENDS)

    @property
    def batch_sizes(self) -> list[int]:
        """Clips of a call."""
        return _numbers("--batch", self.batches)

    @property
    def num_steps(self) -> list[int | None]:
        """Progressive steps; None for all."""
        return [None] if self.steps is None else [*_numbers("--steps", self.steps)]


@main.command(cls=OneLineCommand, context_settings={"show_default": True})
@click.argument("bundles", type=_PATH, nargs=-1, required=True, metavar="BUNDLE...|toy")
@click.option("--checkpoint", type=_PATH, help="The .pth that was exported: PyTorch is measured too.")
@click.option(
    "--backends",
    metavar="NAME,...",
    help=f"Of {', '.join(BENCH_BACKENDS)}.  [default: {','.join(CPU_BACKENDS)}; with an NVIDIA driver, all]",
)
@click.option("--batch", "batches", default="1", metavar="N,...", help="Clips of a call.")
@click.option("--steps", metavar="N,...", help="Progressive steps to run.  [default: all]")
@click.option("--source", type=_PATH, help="Video to take a clip from.  [default: noise]")
@click.option("--data", type=_PATH, help="Data set for mAP: a folder, toy or none.  [default: toy for toy, else none]")
@click.option("--split", default="val", help="Of --data.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each.  [default: the library's choice]")
@click.option("--runs", type=click.IntRange(min=1), default=MIN_RUNS, help="Calls of each, at least.")
@click.option("--seconds", type=click.FloatRange(min=0), default=MIN_S, help="Time of each, at least.")
@click.option("--baseline", metavar="NAME", help="Row that ratios are to.  [default: the first]")
@click.option("--json", "json_file", type=_PATH, help="Write everything there; step-bench compare reads it.")
@click.option("--markdown", "markdown_file", type=_PATH, help="Write the table there.")
@click.option("--html", "html_file", type=_PATH, help="Write a page with tables and figures there.")
@takes(BenchCommand)
def run(command: BenchCommand) -> None:
    """Measures BUNDLEs, in rounds; a configuration that cannot run here is a line that says why."""
    command.check()
    console = make_console()
    with tempfile.TemporaryDirectory() as scratch:
        results, missing = _measure(command, Path(scratch), console)
    console.print(results_table(results))
    for line in [*missing, *problem_lines(results)]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if command.json_file is not None:
        results.write(command.json_file)
    if command.markdown_file is not None:
        with atomic_path(command.markdown_file) as path:
            path.write_text(markdown(results), encoding="utf-8")
    if all(row.problem is not None for row in results.rows):
        raise StepError("none of the configurations could run here; the lines above say why")
    if command.html_file is not None:
        write_page(results, command.html_file)


def _measure(command: BenchCommand, scratch: Path, console: Console) -> tuple[Results, list[str]]:
    """Measures; gives the results, and a line for each thing that there is no model for."""
    folders, checkpoint, data, wanted = list(command.bundles), command.checkpoint, command.data, command.wanted
    if list(map(str, folders)) == [NAME] and not folders[0].exists():
        folders, checkpoint = toy_bundles(scratch, wanted, console), checkpoint or CHECKPOINT
        data = data or Path("toy")
    configurations, missing = list_configurations(
        folders,
        checkpoint,
        backends=wanted,
        batches=command.batch_sizes,
        steps=command.num_steps,
        device=command.device,
        threads=command.threads,
    )
    names = [configuration.name for configuration in configurations]
    if command.baseline is not None and command.baseline not in names:
        raise StepError(f"--baseline is {command.baseline!r}; give one of {', '.join(names)}")
    clips = scratch / "clips.npy"
    np.save(clips, _clips(read_bundle(folders[0]).config, command.source))
    scored = None if data is None or str(data) == "none" else open_data(data, command.split, find_reporter())
    with progress_bar(console) as bar:
        task = bar.add_task("", total=None)
        rows = measure(
            configurations,
            clips,
            data=None if scored is None else (scored.truth.parent, command.split),
            min_runs=command.runs,
            min_s=command.seconds,
            progress=lambda done, total, what: bar.update(task, completed=done, total=total, description=what),
        )
    results = Results.of(
        rows,
        baseline=command.baseline,
        data="" if scored is None else f"{data} {command.split}",
        clip="noise" if command.source is None else command.source.name,
    )
    return results, missing


@main.command("compare", cls=OneLineCommand)
@click.argument("old", type=_PATH)
@click.argument("new", type=_PATH)
def compare_command(old: Path, new: Path) -> None:
    """Compares two --json files; exit code 1 where a configuration became slower beyond noise."""
    before, after = Results.read(old), Results.read(new)
    changes = compare(before, after)
    if not changes:
        raise StepError(f"{old} and {new} have no measured configuration in common")
    console = make_console()
    for line in differences(before, after):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(changes_table(changes))
    slower = [change.name for change in changes if change.is_slower]
    if slower:
        raise StepError(f"{len(slower)} of {len(changes)} configurations became slower: {', '.join(slower)}")


main.add_command(roofline_command)


def _clips(config: StepConfig, source: Path | None) -> NDArray[np.uint8]:
    if source is not None:
        return next(sample_clips(source, config, max_clips=1, batch=1))[1]
    shape = (1, config.clip_frames, config.image_size_px, config.image_size_px, 3)
    return np.random.RandomState(0).randint(0, 256, shape, np.uint8)


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise StepError(f"{option} is {text!r}; give numbers from 1, such as 1,4,8")
    return numbers


if __name__ == "__main__":
    main()
