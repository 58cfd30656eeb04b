"""`step-eval`: frame-mAP of results in AVA's format, or of a model on a data set."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from step.bundle import read_bundle
from step.cli import OneLineCommand, OneLineGroup
from step.errors import StepError
from step.evaluation.scoring import FramesWithoutTruth, Score, ScoringOptions, score_files
from step.files import atomic_path
from step.graph_spec import Precision
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS, BackendName
from step_runtime.dataset_run import DatasetFolder, write_results
from step_runtime.detector import Detector
from step_runtime.map_parity import (
    DEFAULT_TOLERANCES,
    MapTolerance,
    ParityRow,
    Way,
    compare_map,
    find_ways,
)


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


@main.command(cls=OneLineCommand)
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="The .pth that was exported.")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder with SPLIT.csv and frames or videos."
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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting")

        def show(way: Way, step: int, done: int, total: int) -> None:
            bar.update(task, description=f"{_way_name(way)}, step {step}", completed=done, total=total)

        folder = DatasetFolder.open(data, split)
        rows = compare_map(ways, folder, steps=sorted(chosen), device=device, progress=show)
    console.print(parity_table(rows, tolerances))
    for row in rows:
        if row.problem is not None:
            console.print(f"{_way_name(row.way)}: {row.problem}", soft_wrap=True, markup=False, highlight=False)
    failed = [_way_name(row.way) for row in rows if not row.passed(tolerances)]
    if failed:
        raise StepError(f"{len(failed)} of {len(rows)} ways do not give PyTorch's mAP: {', '.join(failed)}")


def parity_table(rows: list[ParityRow], tolerances: dict[Precision, MapTolerance]) -> Table:
    """A row per way, PyTorch's first."""
    steps = sorted({step for row in rows for step in row.mean_ap})
    title = "frame-mAP@0.5 after each step\napart: the worst class from PyTorch's; same: its detections; ms: a clip"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("way", no_wrap=True)
    for column in (*map(str, steps), "apart", "same", "ms", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        means = (f"{row.mean_ap[step]:.4f}" if step in row.mean_ap else "" for step in steps)
        numbers = (f"{row.worst_class:.4f}", f"{row.matched:.1%}", f"{row.latency_ms:.0f}")
        shown = ("", "", "") if row.problem is not None else numbers
        table.add_row(_way_name(row.way), *means, *shown, "ok" if row.passed(tolerances) else "[red]no[/]")
    return table


def _way_name(way: Way) -> str:
    return " ".join(part for part in (way.backend, way.loop, way.precision) if part)


def _names(option: str, text: str, allowed: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in allowed:
            raise StepError(f"{option} is {text!r}; {name!r} is none of {', '.join(allowed)}")
    return names


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
