"""Whole runs over a video: step-run against what the published demo does (naive_demo.py), in rounds.

    python benchmarks/end_to_end.py video.mp4 --model toy --every 2,1,0.5 --threads 2
    python benchmarks/end_to_end.py video.mp4 --model bundle --checkpoint model.pth --backend onnxruntime,openvino

Every program has a process of its own, which keeps its model; only one works at a time. Loading is not counted.
"""

import contextlib
import functools
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import click
from end_to_end_results import (
    EndToEndResults,
    draw_end_to_end,
    end_to_end_markdown,
    end_to_end_problems,
    end_to_end_table,
)
from end_to_end_runs import MeasuredRuns, RunFigures, RunOnce, count_frames, measure_in_rounds, run_step_run
from naive_demo import run_naive
from step_runtime.backends.select import BACKENDS
from step_runtime.sources.video import VideoSource

from step.bundles.manifest import read_bundle
from step.checkpoints.toy_model import NAME, find_bundle, is_packaged
from step.cli import OneLineCommand, find_reporter, takes
from step.errors import StepError
from step.files.atomic import atomic_path, check_outputs
from step.parent import end_with_parent
from step.reporter import Reporter

NAIVE = "naive demo"
_PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class EndToEndCommand:
    """Holds what was typed; see --help."""

    video: str
    model: str
    checkpoint: str | None
    everys: str
    backends: str
    threads: int | None
    rounds: int
    json_file: Path | None
    markdown_file: Path | None
    plot_file: Path | None

    @property
    def names(self) -> list[str]:
        """Gives the names of step-run's backends."""
        return [name.strip() for name in self.backends.split(",")]

    def check(self) -> None:
        """Refuses what can be refused before long work.

        Raises:
            StepError: a backend that is none, an output that cannot be written, or no checkpoint.
        """
        for name in self.names:
            if name not in BACKENDS or name in ("auto", "torch"):
                raise StepError(f"--backend has {name!r}; give some of onnxruntime, openvino, tensorrt, tensorrt-rtx")
        check_outputs({"--json": self.json_file, "--markdown": self.markdown_file, "--plot": self.plot_file})
        if self.checkpoint is None and not is_packaged(self.model):
            raise StepError("--checkpoint is missing; the naive demo runs the .pth that the bundle was exported from")


@click.command(cls=OneLineCommand, context_settings={"show_default": True})
@click.argument("video")
@click.option("--model", default=NAME, help="Bundle, or toy.")
@click.option("--checkpoint", help="The .pth that it was exported from, or toy.  [default: toy with --model toy]")
@click.option("--every", "everys", default="2,1,0.5", metavar="SECONDS|frame,...", help="Time between key frames.")
@click.option("--backend", "backends", default="onnxruntime,openvino", metavar="NAME,...", help="Of step-run.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each model.  [default: its choice]")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Runs of each at each --every.")
@click.option("--json", "json_file", type=_PATH, help="Write everything there.")
@click.option("--markdown", "markdown_file", type=_PATH, help="Write the table there.")
@click.option("--plot", "plot_file", type=_PATH, help="Draw it as PNG.")
@takes(EndToEndCommand)
def main(command: EndToEndCommand) -> None:
    """Compares step-run's whole pipeline on VIDEO with a naive script that finds the same."""
    everys_s = [_parse_every(text) for text in command.everys.split(",")]
    command.check()
    bundle = find_bundle(command.model)
    read_bundle(bundle)
    source = VideoSource(command.video)
    reporter = find_reporter()
    rows = _measure(command, bundle, everys_s, reporter)
    frames = count_frames(command.video)
    results = EndToEndResults.of(
        rows,
        video=source.name,
        model=command.model,
        source_frames=frames,
        duration_s=frames * source.interval_s,
        threads=command.threads,
    )
    reporter.result(end_to_end_table(results))
    for line in end_to_end_problems(results):
        reporter.result(line)
    if command.json_file is not None:
        results.write(command.json_file)
    if command.markdown_file is not None:
        with atomic_path(command.markdown_file) as path:
            path.write_text(end_to_end_markdown(results), encoding="utf-8")
    if not results.measured:
        raise StepError("none of the programs could run here; the lines above say why")
    if command.plot_file is not None:
        draw_end_to_end(results, command.plot_file)


def _measure(
    command: EndToEndCommand, bundle: Path, everys_s: list[Fraction | None], reporter: Reporter
) -> list[MeasuredRuns]:
    """Measures every program at every rate, each in a process of its own."""
    video, threads = command.video, command.threads
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as processes:
        naive = functools.partial(run_naive, video=video, checkpoint=command.checkpoint or NAME, threads=threads)
        programs: dict[str, RunOnce] = {NAIVE: processes.enter_context(_in_a_process(naive))}
        for name in command.names:
            run = functools.partial(run_step_run, video=video, model=str(bundle), backend=name, threads=threads)
            programs[name] = processes.enter_context(_in_a_process(run))
        with reporter.progress("measuring", unit="runs") as progress:
            return measure_in_rounds(
                programs,
                everys_s,
                Path(scratch) / "results",
                rounds=command.rounds,
                progress=lambda done, total, what: progress.update(done, total, status=what),
            )


@contextlib.contextmanager
def _in_a_process(run: Callable[..., RunFigures]) -> Iterator[RunOnce]:
    """The same function in a process that is started for it, at its first call."""
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        yield lambda every_s, folder: pool.submit(run, every_s, folder).result()


def _parse_every(text: str) -> Fraction | None:
    if text.strip() == "frame":
        return None
    try:
        every_s = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        every_s = Fraction(0)
    if every_s <= 0:
        raise StepError(f"--every has {text!r}; give seconds above 0, or frame")
    return every_s


if __name__ == "__main__":
    main()
