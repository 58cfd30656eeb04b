"""`step-eval parity`: the mAP of every way of running a model beside PyTorch's."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

from step.bundles.graph_spec import Precision
from step.bundles.manifest import read_bundle
from step.cli import OneLineCommand, progress_bar
from step.errors import StepError
from step.shown import make_console
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS, BackendName
from step_runtime.evaluation.map_parity import DEFAULT_TOLERANCES, MapTolerance, Way, compare_map, find_ways
from step_runtime.evaluation.open_data import open_data
from step_runtime.evaluation.tables import parity_table


@click.command(cls=OneLineCommand)
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
    console = make_console()
    folder = open_data(data, split, console)
    with progress_bar(console) as bar:
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
