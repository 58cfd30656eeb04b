"""`step-bench`: every configuration of running a model, measured side by side."""

import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from step.bundles.manifest import read_bundle
from step.checkpoints.toy_model import BUNDLE, find_bundle
from step.cli import OneLineCommand, OneLineGroup, examples, find_reporter, takes
from step.config import StepConfig
from step.errors import StepError
from step.files.atomic import atomic_path
from step.nearest import did_you_mean
from step.parameters import Choice, FilePath, ListOf, Number, Whole
from step.reporter import Reporter
from step_runtime.backends.select import MOST_THREADS
from step_runtime.benchmark.comparison import ASPECTS, Aspect, check_comparable, compare, differences
from step_runtime.benchmark.configurations import BENCH_BACKENDS, CPU_BACKENDS, list_configurations
from step_runtime.benchmark.options import BenchCommand
from step_runtime.benchmark.page import write_page
from step_runtime.benchmark.results import BenchSubject, Results
from step_runtime.benchmark.roofline.cli import roofline_command
from step_runtime.benchmark.rounds import MIN_RUNS, MIN_S, MeasuringInterrupted, Row, measure
from step_runtime.benchmark.tables import changes_table, markdown, problem_lines, results_table, title_line
from step_runtime.benchmark.toy_bundles import toy_bundles
from step_runtime.benchmark.verdict import verdict_lines
from step_runtime.clips.sample_clips import sample_clips
from step_runtime.evaluation.open_data import open_data

_PATH = FilePath()
_OF_THE_GROUP = ("-h", "--help", "--version")
_OF_ALL_COMMANDS = ("-v", "--verbose", "-q", "--quiet")


class _RunByDefault(OneLineGroup):
    """`step-bench BUNDLE` means `step-bench run BUNDLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((word for word in args if word not in _OF_ALL_COMMANDS), "--help")
        if first not in self.commands and first not in _OF_THE_GROUP:
            near = did_you_mean(first, self.commands)
            if near and not first.startswith("-") and not find_bundle(first).exists():
                raise click.UsageError(f"{first!r} is neither a bundle nor a command{near}", ctx)
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_RunByDefault,
    epilog=examples(
        "step-bench toy",
        "step-bench bundle --json bench.json --html bench.html",
        "step-bench compare before.json after.json",
        "step-bench roofline toy",
    ),
)
def main() -> None:
    """Measures every configuration of running a model, in rounds: step-bench BUNDLE..., or step-bench toy."""


@main.command(
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-bench toy",
        "step-bench bundle bundle-fp16 --checkpoint model.pth --source video.mp4 --json bench.json --html bench.html",
        "step-bench bundle --backends openvino,onnxruntime --threads 2 --data ava",
    ),
)
@click.argument("bundles", type=_PATH, nargs=-1, required=True, metavar="BUNDLE...|toy")
@click.option("--checkpoint", type=_PATH, help="The .pth that was exported: PyTorch is measured too.")
@click.option(
    "--backends",
    type=ListOf(Choice(BENCH_BACKENDS)),
    metavar="NAME,...",
    help=f"Of {', '.join(BENCH_BACKENDS)}.  [default: {','.join(CPU_BACKENDS)}; with an NVIDIA driver, all]",
)
@click.option("--batch", "batches", type=ListOf(Whole(1)), default="1", metavar="N,...", help="Clips of a call.")
@click.option("--steps", type=ListOf(Whole(1)), metavar="N,...", help="Progressive steps to run.  [default: all]")
@click.option("--source", type=_PATH, help="Video to take a clip from.  [default: noise]")
@click.option("--data", type=_PATH, help="Data set for mAP: a folder, toy or none.  [default: toy for toy, else none]")
@click.option("--split", default="val", help="Of --data.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=Whole(1, MOST_THREADS), help="CPU threads of each.  [default: the library's choice]")
@click.option("--runs", type=Whole(1), default=MIN_RUNS, help="Calls of each, at least.")
@click.option("--seconds", type=Number(least=0), default=MIN_S, help="Time of each, at least.")
@click.option("--baseline", metavar="NAME", help="Row that ratios are to.  [default: the first]")
@click.option("--roofline", type=_PATH, help="What step-bench roofline --json wrote here: the verdict tells the floor.")
@click.option("--json", "json_file", type=_PATH, help="Write everything there; step-bench compare reads it.")
@click.option("--markdown", "markdown_file", type=_PATH, help="Write the table there.")
@click.option("--html", "html_file", type=_PATH, help="Write a page with tables and charts there.")
@takes(BenchCommand)
def run(command: BenchCommand) -> None:
    """Measures BUNDLEs, in rounds; a configuration that cannot run here is a line that says why.

    The last line says what to deploy. Ctrl-C leaves the rounds that were finished.
    """
    command.check()
    floor = command.floor()
    reporter = find_reporter()
    with tempfile.TemporaryDirectory() as scratch:
        results = _measure(command, Path(scratch), reporter)
    verdict = verdict_lines(results, floor)
    if results.measured:
        reporter.result(title_line(results))
        reporter.result(results_table(results))
    for line in (*problem_lines(results), *verdict):
        reporter.result(line)
    _write_files(command, results, verdict)
    if not results.measured:
        raise StepError("none of the configurations could run here; the lines above say why")
    if results.partial:
        raise KeyboardInterrupt


def _write_files(command: BenchCommand, results: Results, verdict: list[str]) -> None:
    if command.json_file is not None:
        results.write(command.json_file)
    if command.markdown_file is not None:
        with atomic_path(command.markdown_file) as path:
            path.write_text(markdown(results, verdict), encoding="utf-8")
    if command.html_file is not None:
        write_page(results, verdict, command.html_file)


def _measure(command: BenchCommand, scratch: Path, reporter: Reporter) -> Results:
    """Measures; whatever is in the folder `scratch` is not called by its path."""
    data = command.data_folder
    first = BUNDLE if command.is_toy else find_bundle(command.bundles[0])
    clips = scratch / "clips.npy"
    np.save(clips, _clips(read_bundle(first).config, command.source))
    scored = None if data is None else open_data(data, command.split, reporter)
    folders = (
        toy_bundles(scratch, command.wanted, reporter) if command.is_toy else list(map(find_bundle, command.bundles))
    )
    configurations, missing = list_configurations(
        folders,
        command.checkpoint_file,
        backends=command.wanted,
        batches=list(command.batches),
        steps=command.num_steps,
        device=command.device,
        threads=command.threads,
    )
    names = [configuration.name for configuration in configurations]
    if command.baseline is not None and command.baseline not in names:
        raise StepError(f"--baseline is {command.baseline!r}; give one of {', '.join(names)}")
    partial = ""
    try:
        with reporter.progress("measuring") as progress:
            rows = measure(
                configurations,
                clips,
                data=None if scored is None else (scored.truth.parent, command.split),
                min_runs=command.runs,
                min_s=command.seconds,
                tell=lambda phase, done, total, name: progress.update(done, total, description=phase, status=name),
            )
    except MeasuringInterrupted as interrupt:
        if not interrupt.rows:
            raise
        rows, partial = interrupt.rows, str(interrupt)
    subject = BenchSubject(
        baseline=command.baseline,
        data="" if scored is None else f"{data} {command.split}",
        clip="noise" if command.source is None else command.source.name,
        model=command.model,
        partial=partial,
        missing=tuple(line.replace(f"{scratch}/", "") for line in missing),
    )
    return Results.of(_without_folder(rows, scratch), subject)


def _without_folder(rows: list[Row], folder: Path) -> list[Row]:
    """Takes a folder that is gone after the command out of the names of models and out of what is said of them."""
    prefix = f"{folder}/"
    return [
        replace(
            row,
            configuration=replace(row.configuration, model=row.configuration.model.removeprefix(prefix)),
            problem=None if row.problem is None else row.problem.replace(prefix, ""),
        )
        for row in rows
    ]


@main.command(
    "compare",
    cls=OneLineCommand,
    epilog=examples(
        "step-bench compare before.json after.json",
        "step-bench compare laptop.json server.json --may-differ machine,threads",
    ),
)
@click.argument("old", type=_PATH)
@click.argument("new", type=_PATH)
@click.option(
    "--may-differ",
    type=ListOf(Choice(ASPECTS)),
    metavar="NAME,...",
    help=f"Of {', '.join(ASPECTS)}: known to differ, and meant.",
)
def compare_command(old: Path, new: Path, may_differ: tuple[Aspect, ...] | None) -> None:
    """Compares two --json files; exit code 1 where a configuration became slower beyond noise.

    Files of another machine, model or number of threads are refused unless --may-differ names what differs.
    """
    before, after = Results.read(old), Results.read(new)
    check_comparable(before, after, may_differ=may_differ or ())
    changes = compare(before, after)
    if not changes:
        raise StepError(f"{old} and {new} have no measured configuration in common")
    reporter = find_reporter()
    for line in differences(before, after):
        reporter.result(line)
    reporter.result(changes_table(changes))
    slower = [change.name for change in changes if change.is_slower]
    if slower:
        raise StepError(f"{len(slower)} of {len(changes)} configurations became slower: {', '.join(slower)}")


main.add_command(roofline_command)


def _clips(config: StepConfig, source: Path | None) -> NDArray[np.uint8]:
    if source is not None:
        return next(sample_clips(source, config, max_clips=1, batch=1))[1]
    shape = (1, config.clip_frames, config.image_size_px, config.image_size_px, 3)
    return np.random.RandomState(0).randint(0, 256, shape, np.uint8)


if __name__ == "__main__":
    main()
