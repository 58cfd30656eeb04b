"""`step-run SOURCE --model BUNDLE`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

from step.checkpoints.toy_model import NAME, WHAT_IT_KNOWS, is_packaged
from step.cli import OneLineCommand, examples, find_reporter, print_error, takes
from step.errors import ArgumentError, StepError
from step.parameters import Choice, FilePath, Number, OrWord, Seconds, Whole
from step.reporter import Reporter
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS, MOST_THREADS, BackendName
from step_runtime.clips.feature_reuse import plan_reuse
from step_runtime.clips.key_frame import DEFAULT_SCORE_THRESHOLD
from step_runtime.detector import Detector
from step_runtime.outputs.run_page import RUN_PAGE, write_run_page
from step_runtime.outputs.run_progress import RunProgress
from step_runtime.outputs.run_source import run_source
from step_runtime.outputs.run_summary import RunSummary, detail_lines, summary_lines
from step_runtime.run_command import RunCommand, RunPlace
from step_runtime.sources.frame_folder import FASTEST_FPS
from step_runtime.tracing.chrome_trace import write_trace
from step_runtime.tracing.summary import summarize
from step_runtime.tracing.tables import trace_report
from step_runtime.tracing.tracer import SILENT, Recorder


@click.command(
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-run --demo",
        "step-run video.mp4 --model bundle",
        "step-run videos --model bundle --every 0.5 --out results",
        "step-run rtsp://10.0.0.6/stream --model bundle --reconnect",
    ),
)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option(
    "--model",
    type=FilePath(),
    help=f"Bundle folder (or, with torch, a .pth); {NAME} is the small model in the package.",
)
@click.option("--demo", is_flag=True, help=f"Run the model {NAME} on a synthetic video, to see what comes out.")
@click.option(
    "--out",
    type=FilePath(),
    help="Folder for the results.  [default: runs/NAME of the source]",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in the same folder.")
@click.option(
    "--every",
    type=OrWord(Seconds(), "frame"),
    default="1.0",
    metavar="SECONDS|frame",
    help="Time between key frames; frame: every source frame.",
)
@click.option(
    "--backend",
    type=Choice(BACKENDS),
    default="auto",
    help="What runs the model; auto takes the fastest that can.",
)
@click.option("--loop", type=Choice(["fused", "steps"]), help="Which graphs.  [default: fused where it can]")
@click.option("--steps", type=Whole(1), help="Stop after this many progressive steps.  [default: all]")
@click.option(
    "--reuse-backbone/--no-reuse-backbone",
    default=False,
    help="Run the backbone once for what neighbouring clips share: faster and approximate, results come later; needs "
    "--every 1/3, 2/3, 1 or 4/3 and the step loop.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads", type=Whole(1, MOST_THREADS), help="CPU threads of the model.  [default: the library's choice]"
)
@click.option(
    "--score-threshold",
    type=Number(least=0, below=1),
    default=DEFAULT_SCORE_THRESHOLD,
    help="Of people in detections.jsonl and the overlay.",
)
@click.option(
    "--frames-fps",
    type=Number(above=0, most=FASTEST_FPS),
    default=30.0,
    help="Frames per second of a folder of frames.",
)
@click.option("--overlay/--no-overlay", default=True, help="Write overlay.mp4.")
@click.option("--html", is_flag=True, help="Write run.html too: the overlay, and who did what for how long.")
@click.option(
    "--stall-timeout",
    type=Number(above=0),
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
    type=FilePath(),
    help="Write what every thread did, and when, for Perfetto or chrome://tracing; print it by stages.",
)
@takes(RunCommand)
def main(command: RunCommand) -> None:
    """Detects people and their actions in each SOURCE: a video, a folder of videos or of frames, a camera index, a URL.

    Writes overlay.mp4, detections.jsonl and people.csv (people and actions; people.parquet too), detections.csv (AVA
    result format) and run.json (whether the run is finished); those of a live source grow while it runs.
    """
    reporter = find_reporter()
    command.check()
    places = command.find(reporter)
    if is_packaged(command.chosen_model) and not command.demo:
        reporter.note(WHAT_IT_KNOWS)
    recorder = None if command.trace_file is None else Recorder()
    skipped: dict[str, str] = {}
    with Detector.open(
        command.chosen_model,
        cast(BackendName, command.backend),
        loop="steps" if command.reuse_backbone else cast("Loop | None", command.loop),
        num_steps=command.steps,
        device=command.device,
        threads=command.threads,
        skipped=skipped.__setitem__,
        tracer=recorder or SILENT,
    ) as detector:
        _say_what_runs(detector, skipped, reporter)
        if command.reuse_backbone:  # before any source is opened
            plan_reuse(detector.backend, detector.config, every_s=command.every)
        problems, interrupted = _run_sources(detector, places, command, reporter)
        if command.trace_file is not None and recorder is not None and recorder.spans:
            about = {
                "model": str(command.chosen_model),
                "source": " ".join(command.sources),
                "backend": _what_ran(detector),
            }
            _report_trace(recorder, command.trace_file, reporter, about=about)
    if interrupted:
        print_error("interrupted; what came before is kept")
        sys.exit(130)
    for problem in problems:
        print_error(problem)
    if problems:
        sys.exit(1)


def _say_what_runs(detector: Detector, skipped: dict[str, str], reporter: Reporter) -> None:
    if skipped:
        reporter.note(f"{_what_ran(detector)}; not here: {', '.join(skipped)} (step-run -v and step-doctor say why)")
    for name, reason in skipped.items():
        reporter.detail(f"{name} skipped: {reason}")


def _run_sources(
    detector: Detector, places: Sequence[RunPlace], command: RunCommand, reporter: Reporter
) -> tuple[list[str], bool]:
    """Runs one source after the other; gives what went wrong, and whether Ctrl-C ended it."""
    problems: list[str] = []
    options = command.run_options(reporter)
    for place in places:
        try:
            with reporter.progress(place.name, unit="s of video") as progress:
                update = RunProgress(progress).update
                summary = run_source(detector, place.location, place.folder, options, name=place.name, progress=update)
            if command.html:
                _write_page(summary, detector, command, place)
        except ArgumentError:
            raise
        except StepError as error:
            if len(places) == 1:
                raise
            problems.append(str(error))  # the other sources are worth running
            continue
        for line in summary.state.notes:
            reporter.note(line)
        what_ran = f"{command.chosen_model}, {_what_ran(detector)}"
        for line in summary_lines(summary, config=detector.config, what_ran=what_ran, folder=place.folder):
            reporter.result(line)
        for line in detail_lines(summary):
            reporter.detail(line)
        problems += [f"{problem}; what came before is kept" for problem in summary.state.problems]
        if summary.interrupted:
            return problems, True
    return problems, False


def _write_page(summary: RunSummary, detector: Detector, command: RunCommand, place: RunPlace) -> None:
    model = command.chosen_model.name
    write_run_page(summary, config=detector.config, model=model, what_ran=_what_ran(detector), folder=place.folder)
    summary.files += (RUN_PAGE,)


def _what_ran(detector: Detector) -> str:
    backend = detector.backend
    return f"{backend.name} on {backend.device.removesuffix('ExecutionProvider')}, {backend.loop} loop"


def _report_trace(recorder: Recorder, path: Path, reporter: Reporter, *, about: dict[str, str]) -> None:
    write_trace(path, recorder.spans, about=about)
    reporter.result(trace_report(summarize(recorder.spans)))
    left_out = f", {recorder.left_out} later spans left out" if recorder.left_out else ""
    reporter.result(f"trace: {path}{left_out}")


if __name__ == "__main__":
    main()
