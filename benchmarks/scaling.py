"""Time and memory of a clip against batch, tubes, steps, image size and clip length, with random weights.

    python benchmarks/scaling.py --backend openvino --threads 2 --json scaling.json --plot docs/scaling.png

Each axis changes one thing of the base and leaves the rest; every point runs in a process of its own, and those of an
axis run in rounds.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from scaling_points import (
    AXES,
    MeasuredPoint,
    growth,
    measure_points,
    scaling_figure,
    scaling_points,
    write_scaling,
)
from step_export.bundle_writer import ExportSettings, export_bundle
from step_runtime.benchmark.configurations import CPU_BACKENDS

from step import StepConfig, StepDetector, StepError, load_checkpoint, save_checkpoint
from step.cli import print_error
from step.files.atomic import atomic_path, check_outputs
from step.reporter import Reporter

_SIZE_PX = 160


def main(words: list[str] | None = None) -> None:
    """Exports, measures, prints, writes and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="whose config is the base; default: the toy model's")
    parser.add_argument("--image-size", type=int, default=_SIZE_PX, help="of the base, in px")
    parser.add_argument("--axes", default=",".join(AXES), help="some of them, with commas between")
    parser.add_argument("--backend", default="openvino", choices=[name for name in CPU_BACKENDS if name != "torch"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args(words)
    try:
        _run(arguments)
    except StepError as error:
        print_error(str(error))
        raise SystemExit(1) from error


def _run(arguments: argparse.Namespace) -> None:
    check_outputs({"--json": arguments.json, "--plot": arguments.plot})
    if arguments.plot is not None and arguments.plot.suffix.lower() not in (".pdf", ".png", ".svg"):
        raise StepError(f"--plot is {arguments.plot}: no picture format; end it with .png, .svg or .pdf")
    chosen = arguments.axes.split(",")
    unknown = [axis for axis in chosen if axis not in AXES]
    if unknown:
        raise StepError(f"--axes has {unknown[0]!r}; give some of {','.join(AXES)}")
    config = load_checkpoint(arguments.checkpoint or "toy").config
    base = dataclasses.replace(config, image_size_px=arguments.image_size)
    points = [point for point in scaling_points(base) if point.axis in chosen]
    models = list(dict.fromkeys(point.model for point in points))
    console = Console()
    with (
        tempfile.TemporaryDirectory() as name,
        Reporter().progress("measuring", len(models) + len(points), "points") as progress,
    ):
        scratch = Path(name)
        folders = {}
        for index, (model, num_steps) in enumerate(models):
            progress.update(index, status="exporting")
            folders[model, num_steps] = scratch / f"bundle{index}"
            _export(model, num_steps, folders[model, num_steps], scratch / "model.pth")
        results = measure_points(
            points,
            [folders[point.model] for point in points],
            base=base,
            backend=arguments.backend,
            threads=arguments.threads,
            min_runs=arguments.runs,
            min_s=arguments.seconds,
            scratch=scratch,
            progress=lambda done, what: progress.update(len(models) + done, status=what),
        )
    for axis in chosen:
        _print_axis(console, [row for row in results if row.axis == axis], axis)
    if arguments.json is not None:
        write_scaling(results, arguments.json, base=base, backend=arguments.backend, threads=arguments.threads)
    if arguments.plot is not None:
        threads = "" if arguments.threads is None else f", {arguments.threads} thread{'s' * (arguments.threads > 1)}"
        title = (
            f"{arguments.backend}{threads}; base (ringed): {base.image_size_px} px, {base.clip_frames} frames, "
            f"{base.num_steps} steps, width {base.width:g}"
        )
        with atomic_path(arguments.plot) as path:
            scaling_figure(results, title).savefig(path)


def _export(config: StepConfig, num_steps: int, folder: Path, checkpoint: Path) -> None:
    torch.manual_seed(0)
    save_checkpoint(StepDetector.from_config(config), checkpoint)
    export_bundle(checkpoint, folder, ExportSettings(graphs="fused", num_steps=num_steps, verify=False))


def _print_axis(console: Console, rows: list[MeasuredPoint], axis: str) -> None:
    power = growth(rows, axis)
    console.print(axis if power is None else f"{axis}: time grows with the power {power:.2f}", style="bold")
    for row in rows:
        if row.p50_s is None:
            text = f"not measured: {row.problem}"
        else:
            text = f"{1e3 * row.p50_s:8.1f} ms  {(row.host_bytes or 0) / 1e6:6.0f} MB"
        console.print(f"{row.value:6} {text}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
