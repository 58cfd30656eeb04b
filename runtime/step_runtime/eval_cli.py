"""`step-eval`: frame-mAP of results in AVA's format, or of a model on a data set."""

import json
import tempfile
from pathlib import Path
from typing import cast

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from step.cli import OneLineGroup
from step.errors import StepError
from step.evaluation.scoring import FramesWithoutTruth, Score, ScoringOptions, score_files
from step.files import atomic_path
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS, BackendName
from step_runtime.dataset_run import DatasetFolder, write_results
from step_runtime.detector import Detector


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
    "--data", type=click.Path(path_type=Path), help="Folder with SPLIT.csv and frames or videos, see step-data."
)
@click.option("--split", default="val", help="Which csv of --data.")
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", help="What runs the model.")
@click.option("--loop", type=click.Choice(["fused", "steps"]), help="Which graphs.  [default: fused where it can]")
@click.option("--steps", type=int, help="Progressive steps to run.  [default: all]")
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
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the scores there.")
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
    device: str,
    label_map: Path | None,
    exclude: Path | None,
    cap: int | None,
    frames_without_truth: str,
    ious: tuple[float, ...],
    json_file: Path | None,
) -> None:
    """Scores detections by AVA's frame-mAP.

    The defaults are the STEP release's; the challenge's are --cap 50 --frames-without-truth drop.
    """
    if context.invoked_subcommand is not None:
        return
    console = Console()
    options = ScoringOptions(ious=ious, cap=cap, frames_without_truth=cast(FramesWithoutTruth, frames_without_truth))
    if model is not None:
        if data is None or truth is not None:
            raise StepError("--model runs on --data, a folder that holds the ground truth; give it, and no --truth")
        folder = DatasetFolder.open(data, split)
        truth, label_map, exclude = folder.truth, label_map or folder.label_map, exclude or folder.exclude
        opened = Detector.open(
            model, cast(BackendName, backend), loop=cast(Loop | None, loop), num_steps=steps, device=device
        )
        with opened as detector, tempfile.TemporaryDirectory() as scratch:
            output = results or Path(scratch) / "results.csv"
            _run(detector, folder, output, console)
            scored = score_files(output, truth, label_map=label_map, exclude=exclude, options=options)
    elif results is None or truth is None:
        raise StepError("give --results and --truth, or --model and --data")
    else:
        scored = score_files(results, truth, label_map=label_map, exclude=exclude, options=options)
    console.print(class_table(scored))
    for note in scored.notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    for iou in ious:
        groups = ", ".join(f"{group} {value:.4f}" for group, value in scored.group_ap(iou).items())
        console.print(f"by kind@{iou:g}: {groups or 'none'}", soft_wrap=True, highlight=False)
        console.print(f"frame-mAP@{iou:g}: {scored.mean_ap(iou):.8f}", soft_wrap=True, highlight=False)
    if json_file is not None:
        with atomic_path(json_file) as path:
            path.write_text(json.dumps(scored.as_json(), indent=2) + "\n")


def _run(detector: Detector, folder: DatasetFolder, output: Path, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"key frames on {detector.backend.name}")
        write_results(
            detector, folder, output, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )


def class_table(scored: Score) -> Table:
    """Average precision of every class at every IoU."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("class")
    for column in ("truth", "detections", *(f"AP@{iou:g}" for iou in scored.results)):
        table.add_column(column, justify="right", no_wrap=True)
    first = next(iter(scored.results.values()))
    for label, result in first.items():
        values = (f"{classes[label].average_precision:.4f}" for classes in scored.results.values())
        name = f"{label} {scored.names.get(label, '')}".rstrip()
        table.add_row(name, str(result.num_truth), str(len(result.score)), *values)
    return table


if __name__ == "__main__":
    main()
