"""`step-eval` scores results in AVA's format, or a model on a data set, by frame-mAP."""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import click

from step.cli import OneLineGroup, examples, find_reporter, takes
from step.config import StepConfig
from step.data.dataset_folder import DatasetFolder
from step.evaluation.ava_csv import read_boxes, read_frames
from step.evaluation.label_map import read_label_map
from step.evaluation.report import ScoredSubject, write_class_csv, write_page
from step.evaluation.scoring import Score
from step.evaluation.video_map import link_detections, true_tubes, video_ap
from step.files.atomic import atomic_path, check_outputs
from step.pages.page import check_packages, format_date
from step.parameters import Choice, FilePath, ListOf, Number, Whole
from step.progress import Progress
from step.reporter import Reporter
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS
from step_runtime.benchmark.machine import describe_machine, machine
from step_runtime.detector import Detector
from step_runtime.evaluation.dataset_run import write_results, write_results_of_each_step
from step_runtime.evaluation.open_data import open_data
from step_runtime.evaluation.options import EvalCommand, ResultsScorer
from step_runtime.evaluation.parity_cli import parity
from step_runtime.evaluation.tables import class_table, step_table

_VIDEO_IOUS = (0.2, 0.5)


@click.group(
    cls=OneLineGroup,
    invoke_without_command=True,
    context_settings={"show_default": True},
    epilog=examples(
        "step-eval --model toy --data toy",
        "step-eval --model build/bundle --data ava --results detections.csv --html report.html",
        "step-eval --results detections.csv --truth ava_val.csv --cap 50 --frames-without-truth drop",
    ),
)
@click.option(
    "--results",
    type=FilePath(),
    help="Detections in AVA's csv format, or the output folder of step-batch; with --model, where to write them.",
)
@click.option("--truth", type=FilePath(), help="Ground truth in AVA's csv format.")
@click.option("--model", type=FilePath(), help="Bundle folder (or a .pth) to run on --data.")
@click.option(
    "--data",
    type=FilePath(),
    help="Folder with SPLIT.csv and frames or videos, see step-data; or toy, the validation set of step-data toy.",
)
@click.option("--split", default="val", help="Which csv of --data.")
@click.option("--backend", type=Choice(BACKENDS), default="auto", help="What runs the model.")
@click.option("--loop", type=Choice(["fused", "steps"]), help="Which graphs.  [default: fused where it can]")
@click.option("--steps", type=Whole(1), help="Progressive steps to run.  [default: all]")
@click.option("--every-step", is_flag=True, help="Score after each step too; the step loop runs.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--label-map", type=FilePath(), help="pbtxt of the classes that count.  [default: all]")
@click.option("--exclude", type=FilePath(), help="csv of key frames that do not count.")
@click.option("--cap", type=Whole(1), help="Best detections of a key frame that count; the challenge takes 50.")
@click.option(
    "--frames-without-truth",
    type=Choice(["count", "drop"]),
    default="count",
    help="Whether detections in key frames without ground truth are wrong; the challenge drops them.",
)
@click.option(
    "--iou",
    "ious",
    type=ListOf(Number(above=0, most=1)),
    default="0.5",
    metavar="IOU,...",
    help="Least overlaps.",
)
@click.option("--video-map", is_flag=True, help="Link detections over key frames and score the tubes too.")
@click.option("--json", "json_file", type=FilePath(), help="Write the scores there.")
@click.option("--csv", "csv_file", type=FilePath(), help="Write a row per class there.")
@click.option("--html", "html_file", type=FilePath(), help="Write a page with curves and, given --data, mistakes.")
@takes(EvalCommand)
def main(command: EvalCommand) -> None:
    """Scores detections by AVA's frame-mAP.

    The defaults are the STEP release's; the challenge's are --cap 50 --frames-without-truth drop.
    """
    context = click.get_current_context()
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    reporter = find_reporter()
    command.check()
    scoring = command.scoring
    folder = None if command.data is None else open_data(command.data, command.split, reporter)
    scorer = command.scorer(folder, scoring)
    _check_before(scorer, command.outputs, with_tubes=command.video_map, with_page=command.html_file is not None)
    if folder is not None and command.model is not None:
        by_step = _score_model(command, folder, scorer, reporter)
    else:
        assert command.results is not None
        by_step = {0: scorer.score(command.results)}
    scored = by_step[max(by_step)]
    extra: dict[str, Any] = {}
    if command.every_step:
        extra["per_step"] = {
            str(step): {f"{iou:g}": each.mean_ap(iou) for iou in command.ious} for step, each in by_step.items()
        }
    if command.video_map:
        extra |= _video_map(scored)
    _print(scored, by_step if command.every_step else {}, extra, reporter)
    _write_files(command, scored, extra, folder)


def _refuse_options_before(context: click.Context) -> None:
    """Refuses options before a subcommand, which has its own: nobody would see them."""
    for parameter in context.command.params:
        if not parameter.expose_value:  # -v and -q are of both
            continue
        if context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE:
            option = max(parameter.opts, key=len)
            raise click.UsageError(
                f"{option} stands before {context.invoked_subcommand}, which does not see it; give it after, or leave "
                "it out"
            )


def _write_files(command: EvalCommand, scored: Score, extra: dict[str, Any], folder: DatasetFolder | None) -> None:
    if command.json_file is not None:
        with atomic_path(command.json_file) as path:
            path.write_text(json.dumps(scored.as_json() | extra, indent=2) + "\n")
    if command.csv_file is not None:
        write_class_csv(scored, command.csv_file)
    if command.html_file is not None:
        key_frame = None if folder is None else folder.key_frame
        write_page(scored, _subject(command), command.html_file, key_frame=key_frame)


def _subject(command: EvalCommand) -> ScoredSubject:
    """Names what was scored, without the folders that things lie in: they are nobody's business who reads the page."""
    model, truth = command.model or command.results, command.truth or command.data
    assert model is not None
    assert truth is not None
    return ScoredSubject(
        model=model.resolve().name,
        truth=truth.name if command.data is None else f"{truth.resolve().name} {command.split}",
        machine=describe_machine(machine()),
        date=format_date(datetime.now().astimezone()),
    )


def _check_before(
    scorer: ResultsScorer, outputs: Mapping[str, Path | None], *, with_tubes: bool, with_page: bool
) -> None:
    """Finds what is wrong before a model runs for hours.

    Raises:
        StepError: a file that cannot be read, a package that is missing, or nowhere to write.
    """
    truth = read_boxes(scorer.truth, last="person")
    if scorer.label_map is not None:
        read_label_map(scorer.label_map)
    if scorer.exclude is not None:
        read_frames(scorer.exclude)
    if with_tubes:
        true_tubes(truth)
    if with_page:
        check_packages()
    check_outputs(outputs)


def _score_model(
    command: EvalCommand, folder: DatasetFolder, scorer: ResultsScorer, reporter: Reporter
) -> dict[int, Score]:
    """Runs and scores a model; returns scores by step. The last step's results go to --results, where it is given."""
    with tempfile.TemporaryDirectory() as scratch:

        def outputs(last: int) -> dict[int, Path]:
            files = {step: Path(scratch) / f"step{step}.csv" for step in range(1, last + 1)}
            return files | ({} if command.results is None else {last: command.results})

        if command.every_step:
            files, config = _run_every_step(command, folder, outputs, reporter)
        else:
            files, config = _run_last_step(command, folder, outputs, reporter)
        by_step = {step: scorer.score(file) for step, file in files.items()}
    names = {label: config.class_name(label) for label in config.class_ids}
    return {step: replace(each, names=each.names or names) for step, each in by_step.items()}


def _print(scored: Score, by_step: dict[int, Score], extra: dict[str, Any], reporter: Reporter) -> None:
    reporter.result(class_table(scored))
    if by_step:
        reporter.result(step_table(by_step))
    for note in scored.notes:
        reporter.note(note)
    for iou in scored.results:
        groups = ", ".join(f"{group} {value:.4f}" for group, value in scored.group_ap(iou).items())
        reporter.result(f"by kind@{iou:g}: {groups or 'none'}")
        reporter.result(f"frame-mAP@{iou:g}: {scored.mean_ap(iou):.8f}")
    for name, value in extra.get("video_mAP", {}).items():
        reporter.result(f"video-mAP@{name}: {value:.8f}")


def _video_map(scored: Score) -> dict[str, Any]:
    truth = true_tubes(scored.truth.table.take(scored.truth.rows))
    found = link_detections(scored.detections.table.take(scored.detections.rows))
    by_iou = {f"{iou:g}": video_ap(truth, found, iou=iou) for iou in _VIDEO_IOUS}
    return {
        "video_mAP": {iou: sum(values.values()) / max(len(values), 1) for iou, values in by_iou.items()},
        "video_per_class": {
            iou: {str(label): value for label, value in values.items()} for iou, values in by_iou.items()
        },
    }


Outputs = Callable[[int], dict[int, Path]]
"""Names the file of each step's results, given the number of steps."""


def _run_last_step(
    command: EvalCommand, folder: DatasetFolder, outputs: Outputs, reporter: Reporter
) -> tuple[dict[int, Path], StepConfig]:
    """Runs a model; returns the file of results after its last step, by step, and the model's architecture."""
    detector = command.open(reporter, loop=cast(Loop | None, command.loop), num_steps=command.steps)
    with detector, _shown(detector, reporter) as progress:
        last = command.steps or detector.config.num_steps
        output = outputs(last)[last]
        write_results(detector, folder, output, progress=progress.update)
        return {last: output}, detector.config


def _run_every_step(
    command: EvalCommand, folder: DatasetFolder, outputs: Outputs, reporter: Reporter
) -> tuple[dict[int, Path], StepConfig]:
    """Runs a model in one pass, or in one for each step where the library gives the last step only.

    Returns:
        Files of results by step, and the model's architecture.
    """
    with command.open(reporter, loop="steps", num_steps=command.steps) as detector:
        config = detector.config
        files = outputs(command.steps or config.num_steps)
        if detector.gives_every_step:
            with _shown(detector, reporter) as progress:
                write_results_of_each_step(detector, folder, list(files.values()), progress=progress.update)
            return files, config
    for step, file in files.items():
        detector = command.open(reporter, loop="steps", num_steps=step)
        with detector, _shown(detector, reporter) as progress:
            write_results(detector, folder, file, progress=progress.update)
    return files, config


def _shown(detector: Detector, reporter: Reporter) -> AbstractContextManager[Progress]:
    return reporter.progress(f"scoring on {detector.backend.name}", unit="key frames")


main.add_command(parity)


if __name__ == "__main__":
    main()
