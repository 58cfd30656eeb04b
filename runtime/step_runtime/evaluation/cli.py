"""`step-eval`: frame-mAP of results in AVA's format, or of a model on a data set."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console

from step.cli import OneLineGroup, progress_bar
from step.config import StepConfig
from step.data.dataset_folder import DatasetFolder
from step.errors import StepError
from step.evaluation.box_table import read_boxes, read_frames
from step.evaluation.label_map import read_label_map
from step.evaluation.report import check_packages, write_class_csv, write_page
from step.evaluation.scoring import FramesWithoutTruth, Score, ScoringOptions, score_files
from step.evaluation.video_map import link_detections, true_tubes, video_ap
from step.files.atomic import atomic_path, check_outputs
from step.shown import make_console
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS, BackendName
from step_runtime.detector import Detector
from step_runtime.evaluation.dataset_run import write_results
from step_runtime.evaluation.open_data import open_data
from step_runtime.evaluation.parity_cli import parity
from step_runtime.evaluation.tables import class_table, step_table

_VIDEO_IOUS = (0.2, 0.5)


@dataclass(frozen=True, kw_only=True)
class _Running:
    """What runs the model."""

    model: Path
    backend: BackendName
    loop: Loop | None
    device: str


@dataclass(frozen=True, kw_only=True)
class _Scorer:
    """What results are scored against, and how."""

    truth: Path
    label_map: Path | None
    exclude: Path | None
    options: ScoringOptions

    def score(self, results: Path) -> Score:
        return score_files(results, self.truth, label_map=self.label_map, exclude=self.exclude, options=self.options)


def _parse_ious(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise StepError(f"--iou is {value!r}; give numbers such as 0.5 or 0.5,0.75") from None


@click.group(cls=OneLineGroup, invoke_without_command=True, context_settings={"show_default": True})
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Detections in AVA's csv format; with --model, where to write them.",
)
@click.option("--truth", type=click.Path(path_type=Path), help="Ground truth in AVA's csv format.")
@click.option("--model", type=click.Path(path_type=Path), help="Bundle folder (or a .pth) to run on --data.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with SPLIT.csv and frames or videos, see step-data; or toy, the validation set of step-data toy.",
)
@click.option("--split", default="val", help="Which csv of --data.")
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", help="What runs the model.")
@click.option("--loop", type=click.Choice(["fused", "steps"]), help="Which graphs.  [default: fused where it can]")
@click.option("--steps", type=int, help="Progressive steps to run.  [default: all]")
@click.option("--every-step", is_flag=True, help="Score after each step too; the model runs once for each.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--label-map", type=click.Path(path_type=Path), help="pbtxt of the classes that count.  [default: all]")
@click.option("--exclude", type=click.Path(path_type=Path), help="csv of key frames that do not count.")
@click.option("--cap", type=int, help="Best detections of a key frame that count; the challenge takes 50.")
@click.option(
    "--frames-without-truth",
    type=click.Choice(["count", "drop"]),
    default="count",
    help="Whether detections in key frames without ground truth are wrong; the challenge drops them.",
)
@click.option("--iou", "ious", callback=_parse_ious, default="0.5", metavar="IOU,...", help="Least overlaps.")
@click.option("--video-map", is_flag=True, help="Link detections over key frames and score the tubes too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the scores there.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write a row per class there.")
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path), help="Write a page with curves and, given --data, mistakes."
)
@click.pass_context
def main(
    context: click.Context,
    results: Path | None,
    truth: Path | None,
    model: Path | None,
    data: Path | None,
    split: str,
    backend: str,
    loop: str | None,
    steps: int | None,
    every_step: bool,
    device: str,
    label_map: Path | None,
    exclude: Path | None,
    cap: int | None,
    frames_without_truth: str,
    ious: tuple[float, ...],
    video_map: bool,
    json_file: Path | None,
    csv_file: Path | None,
    html_file: Path | None,
) -> None:
    """Scores detections by AVA's frame-mAP.

    The defaults are the STEP release's; the challenge's are --cap 50 --frames-without-truth drop.
    """
    if context.invoked_subcommand is not None:
        return
    console = make_console()
    options = ScoringOptions(ious=ious, cap=cap, frames_without_truth=cast(FramesWithoutTruth, frames_without_truth))
    folder = None if data is None else open_data(data, split, console)
    if folder is not None:
        if truth is not None:
            raise StepError(f"--data {data} holds the ground truth; give no --truth")
        truth, label_map, exclude = folder.truth, label_map or folder.label_map, exclude or folder.exclude
    if model is None and (results is None or truth is None):
        raise StepError("give --results and --truth, or --model and --data")
    if model is not None and folder is None:
        raise StepError("--model runs on --data, a folder that holds the ground truth; give it")
    if model is None and (every_step or steps is not None):
        raise StepError("--steps and --every-step are of a model that is run; give --model and --data")
    if every_step and loop == "fused":
        raise StepError("--every-step needs the graph of each step; leave out --loop fused")
    assert truth is not None
    scorer = _Scorer(truth=truth, label_map=label_map, exclude=exclude, options=options)
    outputs = {"--json": json_file, "--csv": csv_file, "--html": html_file}
    if model is not None:
        outputs["--results"] = results
    _check_before(scorer, outputs, with_tubes=video_map, with_page=html_file is not None)
    if model is not None and folder is not None:
        running = _Running(model=model, backend=cast(BackendName, backend), loop=cast(Loop | None, loop), device=device)
        by_step = _score_model(running, folder, scorer, results, steps, console, every_step=every_step)
    else:
        assert results is not None
        by_step = {0: scorer.score(results)}
    scored = by_step[max(by_step)]
    extra: dict[str, Any] = {}
    if every_step:
        means = {str(step): {f"{iou:g}": each.mean_ap(iou) for iou in ious} for step, each in by_step.items()}
        extra["per_step"] = means
    if video_map:
        extra |= _video_map(scored)
    _print(scored, by_step if every_step else {}, extra, console)
    if json_file is not None:
        with atomic_path(json_file) as path:
            path.write_text(json.dumps(scored.as_json() | extra, indent=2) + "\n")
    if csv_file is not None:
        write_class_csv(scored, csv_file)
    if html_file is not None:
        write_page(scored, html_file, picture=None if folder is None else folder.key_frame)


def _check_before(scorer: _Scorer, outputs: Mapping[str, Path | None], *, with_tubes: bool, with_page: bool) -> None:
    """What can be known before a model runs for hours."""
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
    running: _Running,
    folder: DatasetFolder,
    scorer: _Scorer,
    results: Path | None,
    steps: int | None,
    console: Console,
    *,
    every_step: bool,
) -> dict[int, Score]:
    """By step; the last one's results go to `results`, where that is given."""
    with tempfile.TemporaryDirectory() as scratch:
        output = results or Path(scratch) / "results.csv"
        last, config = _run(running, folder, output, steps, console)
        by_step = {last: scorer.score(output)}
        for step in range(1, last) if every_step else ():
            partial = Path(scratch) / f"step{step}.csv"
            _run(running, folder, partial, step, console)
            by_step[step] = scorer.score(partial)
    names = {label: config.class_name(label) for label in config.class_ids}
    return {step: replace(each, names=each.names or names) for step, each in sorted(by_step.items())}


def _print(scored: Score, by_step: dict[int, Score], extra: dict[str, Any], console: Console) -> None:
    console.print(class_table(scored))
    if by_step:
        console.print(step_table(by_step))
    for note in scored.notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    for iou in scored.results:
        groups = ", ".join(f"{group} {value:.4f}" for group, value in scored.group_ap(iou).items())
        console.print(f"by kind@{iou:g}: {groups or 'none'}", soft_wrap=True, highlight=False)
        console.print(f"frame-mAP@{iou:g}: {scored.mean_ap(iou):.8f}", soft_wrap=True, highlight=False)
    for name, value in extra.get("video_mAP", {}).items():
        console.print(f"video-mAP@{name}: {value:.8f}", soft_wrap=True, highlight=False)


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


def _run(
    running: _Running, folder: DatasetFolder, output: Path, num_steps: int | None, console: Console
) -> tuple[int, StepConfig]:
    """Writes the results of a model; says how many steps it ran, and what the model is."""
    opened = Detector.open(
        running.model, running.backend, loop=running.loop, num_steps=num_steps, device=running.device
    )
    with opened as detector, progress_bar(console) as bar:
        task = bar.add_task(f"key frames on {detector.backend.name}")
        write_results(
            detector, folder, output, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
        return num_steps or detector.config.num_steps, detector.config


main.add_command(parity)


if __name__ == "__main__":
    main()
