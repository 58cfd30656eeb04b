"""`step-eval --results r.csv --truth gt.csv`: frame-mAP of results in AVA's format."""

import json
from pathlib import Path
from typing import cast

import click
from rich import box
from rich.console import Console
from rich.table import Table

from step.cli import OneLineGroup
from step.errors import StepError
from step.evaluation.scoring import FramesWithoutTruth, Score, ScoringOptions, score_files
from step.files import atomic_path


def _parse_ious(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise StepError(f"--iou is {value!r}; give numbers such as 0.5 or 0.5,0.75") from None


@click.group(cls=OneLineGroup, invoke_without_command=True, context_settings={"show_default": True})
@click.option("--results", type=click.Path(path_type=Path), help="Detections in AVA's csv format.")
@click.option("--truth", type=click.Path(path_type=Path), help="Ground truth in AVA's csv format.")
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
    if results is None or truth is None:
        raise StepError("give --results and --truth")
    options = ScoringOptions(ious=ious, cap=cap, frames_without_truth=cast(FramesWithoutTruth, frames_without_truth))
    scored = score_files(results, truth, label_map=label_map, exclude=exclude, options=options)
    console = Console()
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
