"""`step-eval`: frame-mAP of results in AVA's format, or of a model on a data set."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from step.bundle import read_bundle
from step.cli import OneLineCommand, OneLineGroup
from step.data.toy_cache import toy_validation_set
from step.errors import StepError
from step.evaluation.report import write_class_csv, write_page
from step.evaluation.scoring import FramesWithoutTruth, Score, ScoringOptions, score_files
from step.evaluation.video_map import link_detections, true_tubes, video_ap
from step.files import atomic_path
from step.graph_spec import Precision
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS, BackendName
from step_runtime.dataset_run import DatasetFolder, write_results
from step_runtime.detector import Detector
from step_runtime.eval_tables import class_table, parity_table, step_table
from step_runtime.map_parity import DEFAULT_TOLERANCES, MapTolerance, Way, compare_map, find_ways

_VIDEO_IOUS = (0.2, 0.5)


@dataclass(frozen=True, kw_only=True)
class _Running:
    """What runs the model."""

    model: Path
    backend: BackendName
    loop: Loop | None
    device: str


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
    console = Console()
    options = ScoringOptions(ious=ious, cap=cap, frames_without_truth=cast(FramesWithoutTruth, frames_without_truth))
    folder = None if data is None else _open_data(data, split, console)
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
    by_step: dict[int, Score] = {}
    assert truth is not None
    with tempfile.TemporaryDirectory() as scratch:
        if model is not None and folder is not None:
            running = _Running(
                model=model, backend=cast(BackendName, backend), loop=cast(Loop | None, loop), device=device
            )
            output = results or Path(scratch) / "results.csv"
            last = _run(running, folder, output, steps, console)
            for step in range(1, last) if every_step else ():
                partial = Path(scratch) / f"step{step}.csv"
                _run(running, folder, partial, step, console)
                by_step[step] = score_files(partial, truth, label_map=label_map, exclude=exclude, options=options)
            results = output
        assert results is not None
        scored = score_files(results, truth, label_map=label_map, exclude=exclude, options=options)
        if every_step:
            by_step[last] = scored
    extra: dict[str, Any] = {}
    if by_step:
        means = {str(step): {f"{iou:g}": each.mean_ap(iou) for iou in ious} for step, each in by_step.items()}
        extra["per_step"] = means
    if video_map:
        extra |= _video_map(scored)
    _print(scored, by_step, extra, console)
    if json_file is not None:
        with atomic_path(json_file) as path:
            path.write_text(json.dumps(scored.as_json() | extra, indent=2) + "\n")
    if csv_file is not None:
        write_class_csv(scored, csv_file)
    if html_file is not None:
        write_page(scored, html_file, picture=None if folder is None else folder.key_frame)


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


def _open_data(data: Path, split: str, console: Console) -> DatasetFolder:
    """A folder, or the toy validation set."""
    if str(data) != "toy" or data.exists():
        return DatasetFolder.open(data, split)
    if split != "val":
        raise StepError(f"--split is {split!r}; --data toy has only val; step-data toy makes both")
    with _progress(console) as bar:
        task = bar.add_task("making up the toy validation set", total=None)
        folder = toy_validation_set(lambda done, total: bar.update(task, completed=done, total=total))
    return DatasetFolder.open(folder, split)


def _run(running: _Running, folder: DatasetFolder, output: Path, num_steps: int | None, console: Console) -> int:
    """Writes the results of a model; says how many steps it ran."""
    opened = Detector.open(
        running.model, running.backend, loop=running.loop, num_steps=num_steps, device=running.device
    )
    with opened as detector, _progress(console) as bar:
        task = bar.add_task(f"key frames on {detector.backend.name}")
        write_results(
            detector, folder, output, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
        return num_steps or detector.config.num_steps


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


@main.command(cls=OneLineCommand)
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="The .pth that was exported.")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder with SPLIT.csv and frames or videos, or toy."
)
@click.option("--split", default="val", show_default=True, help="Which csv of --data.")
@click.option("--backends", default="onnxruntime", show_default=True, metavar="NAME,...", help="Beside PyTorch.")
@click.option("--loops", default="fused,steps", show_default=True, metavar="NAME,...", help="Which graphs.")
@click.option("--precisions", metavar="NAME,...", help="Of the bundles.  [default: all that they have]")
@click.option("--steps", metavar="N,...", help="Progressive steps to score after.  [default: each]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--tolerance", type=float, help="Of the mAP.  [default: 0.001 for fp32, 0.005 for fp16]")
@click.option("--class-tolerance", type=float, default=0.02, show_default=True, help="Of a class's average precision.")
def parity(
    bundles: tuple[Path, ...],
    checkpoint: Path,
    data: Path,
    split: str,
    backends: str,
    loops: str,
    precisions: str | None,
    steps: str | None,
    device: str,
    tolerance: float | None,
    class_tolerance: float,
) -> None:
    """Compares the mAP of BUNDLEs, in every way of running them, with PyTorch's; exit code 1 beyond the tolerance."""
    manifests = [read_bundle(bundle) for bundle in bundles]
    every_precision = ",".join(manifest.precision for manifest in manifests)
    ways = find_ways(
        list(bundles),
        checkpoint,
        backends=cast(list[BackendName], _names("--backends", backends, BACKENDS)),
        loops=cast(list[Loop], _names("--loops", loops, ("fused", "steps"))),
        precisions=cast(list[Precision], _names("--precisions", precisions or every_precision, ("fp32", "fp16"))),
    )
    num_steps = min(manifest.num_steps for manifest in manifests)
    numbers = [str(step) for step in range(1, num_steps + 1)]
    chosen = [int(step) for step in _names("--steps", steps or ",".join(numbers), tuple(numbers))]
    tolerances = {
        precision: MapTolerance(default.mean if tolerance is None else tolerance, class_tolerance)
        for precision, default in DEFAULT_TOLERANCES.items()
    }
    console = Console()
    folder = _open_data(data, split, console)
    with _progress(console) as bar:
        task = bar.add_task("starting")

        def show(way: Way, step: int, done: int, total: int) -> None:
            bar.update(task, description=f"{way.name}, step {step}", completed=done, total=total)

        rows = compare_map(ways, folder, steps=sorted(chosen), device=device, progress=show)
    console.print(parity_table(rows, tolerances))
    for row in rows:
        if row.problem is not None:
            console.print(f"{row.way.name}: {row.problem}", soft_wrap=True, markup=False, highlight=False)
    failed = [row.way.name for row in rows if not row.passed(tolerances)]
    if failed:
        raise StepError(f"{len(failed)} of {len(rows)} ways do not give PyTorch's mAP: {', '.join(failed)}")


def _names(option: str, text: str, allowed: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in allowed:
            raise StepError(f"{option} is {text!r}; {name!r} is none of {', '.join(allowed)}")
    return names


if __name__ == "__main__":
    main()
