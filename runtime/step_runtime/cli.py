"""`step-run SOURCE --model BUNDLE`."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from step.arguments import exact_rate
from step.cli import OneLineCommand, print_error, takes
from step.errors import StepError
from step.files.atomic import check_writable
from step.shown import make_console
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS, BackendName
from step_runtime.clips.feature_reuse import plan_reuse
from step_runtime.clips.feature_windows import groups_between_keys
from step_runtime.detector import Detector
from step_runtime.outputs.run_progress import RunProgress
from step_runtime.outputs.run_source import RunOptions, RunSummary, run_source
from step_runtime.sources.live import LiveOptions
from step_runtime.sources.open import find_sources, source_names
from step_runtime.tracing.chrome_trace import write_trace
from step_runtime.tracing.summary import summarize
from step_runtime.tracing.tables import trace_report
from step_runtime.tracing.tracer import SILENT, Recorder

_ACTIONS_SHOWN = 8
_FASTEST_FPS = 1000


def _parse_every(_ctx: click.Context, _param: click.Parameter, value: str) -> Fraction | None:
    """Seconds between key frames, exact; None stands for every source frame."""
    if value == "frame":
        return None
    try:
        every_s = Fraction(value)
    except (ValueError, ZeroDivisionError):
        every_s = Fraction(0)
    if every_s <= 0:
        raise StepError(f"--every is {value!r}; give seconds above 0, or frame")
    return every_s


@dataclass(frozen=True)
class RunCommand:
    """What was typed; see `step-run --help`."""

    source: str
    model: Path
    out: Path | None
    every: Fraction | None
    backend: str
    loop: str | None
    steps: int | None
    reuse_backbone: bool
    device: str
    threads: int | None
    score_threshold: float
    frames_fps: float
    overlay: bool
    stall_timeout: float
    reconnect: bool
    trace_file: Path | None

    @property
    def exact_frames_fps(self) -> Fraction:
        """Frames per second of a folder of frames: 29.97 is 30000/1001."""
        return exact_rate("frames_fps", self.frames_fps)

    def check(self) -> None:
        """Refuses what needs neither the model nor the source to be refused.

        Raises:
            StepError: a value out of range, or options that exclude each other.
        """
        if math.isnan(self.score_threshold) or not 0 <= self.score_threshold < 1:
            raise StepError(f"--score-threshold is {self.score_threshold}; it must be in [0, 1)")
        if not 0 < self.frames_fps <= _FASTEST_FPS:
            raise StepError(f"--frames-fps is {self.frames_fps}; it must be above 0, at most {_FASTEST_FPS}")
        if not 0 < self.stall_timeout < math.inf:
            raise StepError(f"--stall-timeout is {self.stall_timeout}; it must be above 0 seconds")
        if self.trace_file is not None:
            check_writable(self.trace_file)
        if self.reuse_backbone and self.loop == "fused":
            raise StepError("--reuse-backbone with --loop fused, whose one graph cannot be cut; leave --loop out")
        if self.reuse_backbone:
            groups_between_keys(self.every)

    def run_options(self, *, say: Callable[[str], None]) -> RunOptions:
        """How each source is run.

        Args:
            say: is called with what becomes of a live source's connection.
        """
        return RunOptions(
            every_s=self.every,
            frames_fps=self.exact_frames_fps,
            score_threshold=self.score_threshold,
            overlay=self.overlay,
            reuse_backbone=self.reuse_backbone,
            live=LiveOptions(stall_timeout_s=self.stall_timeout, reconnect=self.reconnect, say=say),
        )


@click.command(cls=OneLineCommand, context_settings={"show_default": True})
@click.argument("source")
@click.option("--model", required=True, type=click.Path(path_type=Path), help="Bundle folder (or, with torch, a .pth).")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: runs/SOURCE's name]")
@click.option(
    "--every",
    callback=_parse_every,
    default="1.0",
    metavar="SECONDS|frame",
    help="Time between key frames; frame: every source frame.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    help="What runs the model; auto takes the fastest that can.",
)
@click.option("--loop", type=click.Choice(["fused", "steps"]), help="Which graphs.  [default: fused where it can]")
@click.option("--steps", type=int, help="Stop after this many progressive steps.  [default: all]")
@click.option(
    "--reuse-backbone/--no-reuse-backbone",
    default=False,
    help="Run the backbone once for what neighbouring clips share: faster and approximate, results come later; needs "
    "--every 1/3, 2/3, 1 or 4/3 and the step loop.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=int, help="CPU threads of the model.  [default: the library's choice]")
@click.option("--score-threshold", type=float, default=0.4, help="Of people in detections.jsonl and the overlay.")
@click.option("--frames-fps", type=float, default=30.0, help="Frames per second of a folder of frames.")
@click.option("--overlay/--no-overlay", default=True, help="Write overlay.mp4.")
@click.option(
    "--stall-timeout",
    type=float,
    default=10.0,
    metavar="SECONDS",
    help="Without a frame for so long, a stream or camera counts as broken.",
)
@click.option(
    "--reconnect/--no-reconnect",
    default=False,
    help="Connect again when a live source breaks or ends, after growing pauses.  [default: end with an error]",
    show_default=False,
)
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(path_type=Path),
    help="Write what every thread did, and when, for Perfetto or chrome://tracing; print it by stages.",
)
@takes(RunCommand)
def main(command: RunCommand) -> None:
    """Detects people and their actions in SOURCE: a video file, a folder of videos or of frames, a camera index, a URL.

    Writes detections.jsonl (people and actions), detections.csv (AVA result format), overlay.mp4 and run.json (whether
    the run is finished); those of a live source grow while it runs.
    """
    command.check()
    console = make_console(stderr=True)

    def note(line: str) -> None:
        console.print(line, style="dim", soft_wrap=True, highlight=False, markup=False)

    locations = find_sources(command.source, frames_fps=command.exact_frames_fps, say=note)
    recorder = None if command.trace_file is None else Recorder()
    with Detector.open(
        command.model,
        cast(BackendName, command.backend),
        loop="steps" if command.reuse_backbone else cast("Loop | None", command.loop),
        num_steps=command.steps,
        device=command.device,
        threads=command.threads,
        skipped=lambda name, reason: note(f"{name} skipped: {reason}"),
        tracer=recorder or SILENT,
    ) as detector:
        if command.reuse_backbone:  # before any source is opened
            plan_reuse(detector.backend, detector.config, every_s=command.every)
        problems, interrupted = _run_sources(detector, locations, command, console, note)
        if command.trace_file is not None and recorder is not None and recorder.spans:
            about = {"model": str(command.model), "source": command.source, "backend": _what_ran(detector)}
            _report_trace(recorder, command.trace_file, console, about=about)
    if interrupted:
        print_error("interrupted; what came before is kept")
        sys.exit(130)
    for problem in problems:
        print_error(problem)
    if problems:
        sys.exit(1)


def _run_sources(
    detector: Detector,
    locations: Sequence[str | Path],
    command: RunCommand,
    console: Console,
    note: Callable[[str], None],
) -> tuple[list[str], bool]:
    """Runs one source after the other; gives what went wrong, and whether Ctrl-C ended it."""
    problems: list[str] = []
    for location, name in zip(locations, source_names(locations), strict=True):
        folder = command.out or Path("runs") / source_names([command.source])[0]
        if len(locations) > 1:
            folder = folder / name
        try:
            with RunProgress(console, name) as bar:
                options = command.run_options(say=bar.say)
                summary = run_source(detector, location, folder, options, name=name, progress=bar.update)
        except StepError as error:
            if len(locations) == 1:
                raise
            problems.append(str(error))  # the other sources of the folder are worth running
            continue
        for line in summary.state.notes:
            note(line)
        console.print(_summary_table(summary, detector, command.model, folder))
        problems += [f"{problem}; what came before is kept" for problem in summary.state.problems]
        if summary.interrupted:
            return problems, True
    return problems, False


def _summary_table(summary: RunSummary, detector: Detector, model: Path, folder: Path) -> Table:
    """One screen: what ran, how fast, what was seen, where it lies."""
    state = summary.state
    table = Table(title=escape(f"step-run: {summary.video}"), show_header=False, title_justify="left")
    table.add_row("model", escape(f"{model} ({_what_ran(detector)})"))
    rate = summary.key_frames / summary.elapsed_s
    table.add_row("key frames", f"{summary.key_frames} in {summary.elapsed_s:.1f} s ({rate:.2f} a second)")
    table.add_row("inference", f"{state.inference_s / summary.key_frames:.3f} s a clip")
    decoded_s = max(float(state.decoded_s), 1e-3)
    table.add_row(
        "reader thread", f"{state.host_s / decoded_s:.3f} core-seconds a second of video, decoder threads not counted"
    )
    dropped = f"{state.dropped_clips} clips"
    dropped += f" and {summary.dropped_frames} frames" if summary.dropped_frames else ""
    table.add_row("lag", f"{summary.worst_lag_s:.1f} s at worst, {dropped} dropped")
    if summary.reconnects:
        table.add_row("connection", f"made again {summary.reconnects} times")
    table.add_row("people", f"{summary.people} boxes")
    for label, count in summary.actions.most_common(_ACTIONS_SHOWN):
        table.add_row("", f"{count} x {detector.config.class_name(label)}")
    table.add_row("results", escape(f"{folder}"))
    return table


def _what_ran(detector: Detector) -> str:
    backend = detector.backend
    return f"{backend.name}, {backend.device}, {backend.loop} loop"


def _report_trace(recorder: Recorder, path: Path, console: Console, *, about: dict[str, str]) -> None:
    write_trace(path, recorder.spans, about=about)
    console.print(trace_report(summarize(recorder.spans)), soft_wrap=True, highlight=False)
    left_out = f", {recorder.left_out} later spans left out" if recorder.left_out else ""
    console.print(f"trace: {path}{left_out}", soft_wrap=True, highlight=False, markup=False)
