"""Lays out the tables that `step-eval` prints."""

from collections.abc import Mapping

from rich import box
from rich.markup import escape
from rich.table import Table

from step.bundles.graph_spec import Precision
from step.classes import class_name
from step.evaluation.scoring import Score
from step_runtime.evaluation.map_parity import MapParityRow, MapTolerance


def class_table(scored: Score) -> Table:
    """Lays out the average precision of every class at every IoU."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("class")
    for column in ("truth", "detections", *(f"AP@{iou:g}" for iou in scored.results)):
        table.add_column(column, justify="right", no_wrap=True)
    first = next(iter(scored.results.values()))
    for label, result in first.items():
        values = (f"{classes[label].average_precision:.4f}" for classes in scored.results.values())
        name = f"{label} {scored.names.get(label) or class_name(label)}"
        table.add_row(escape(name), str(result.num_truth), str(len(result.score)), *values)
    return table


def step_table(scores: Mapping[int, Score]) -> Table:
    """Lays out frame-mAP after every progressive step."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    ious = list(next(iter(scores.values())).results)
    table.add_column("after step")
    for iou in ious:
        table.add_column(f"mAP@{iou:g}", justify="right", no_wrap=True)
    for step, scored in scores.items():
        table.add_row(str(step), *(f"{scored.mean_ap(iou):.4f}" for iou in ious))
    return table


def map_parity_table(rows: list[MapParityRow], tolerances: dict[Precision, MapTolerance]) -> Table:
    """Lays out one row per configuration, PyTorch's first."""
    steps = sorted({step for row in rows for step in row.mean_ap})
    title = "frame-mAP@0.5 after each step\napart: the worst class from PyTorch's; same: its detections; ms: a clip"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("configuration", no_wrap=True)
    for column in (*map(str, steps), "apart", "same", "ms", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        means = (f"{row.mean_ap[step]:.4f}" if step in row.mean_ap else "" for step in steps)
        numbers = (f"{row.worst_class:.4f}", f"{row.matched:.1%}", f"{row.latency_ms:.0f}")
        shown = ("", "", "") if row.problem is not None else numbers
        table.add_row(row.configuration.name, *means, *shown, "ok" if row.passed(tolerances) else "[red]no[/]")
    return table
