"""Time and memory of a call against one property at a time: batch, tubes, steps, image size, clip length."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from step_runtime.benchmark.configurations import BenchConfiguration
from step_runtime.benchmark.machine import machine, versions
from step_runtime.benchmark.rounds import Row, measure
from step_runtime.benchmark.statistics import percentile

from step.anchors import anchor_boxes
from step.config import StepConfig
from step.files.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = 1
AXES = {
    "batch": "clips of a call",
    "tubes": "tubes",
    "steps": "progressive steps",
    "image size": "image size (px a side)",
    "clip length": "clip length (frames)",
}
"""What is changed, and how a plot calls it."""

_BATCHES = (1, 2, 4, 8)
_ANCHOR_MODES = (1, 2, 3, 4)
_SIZES = (0.5, 0.75, 1, 1.5)  # of the base's image size
_CHUNK_FRAMES = (1, 2, 3, 4, 6)
_TIME_COLOR, _MEMORY_COLOR = "#0072B2", "#D55E00"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement that is to be made.

    Attributes:
        axis: of `AXES`.
        value: on that axis.
        config: the model.
        num_steps: progressive steps of it that run.
        batch: clips of a call.
    """

    axis: str
    value: int
    config: StepConfig
    num_steps: int
    batch: int = 1

    @property
    def model(self) -> tuple[StepConfig, int]:
        """What has to be exported; the same for points that differ in the batch only."""
        return self.config, self.num_steps


@dataclass(frozen=True, kw_only=True)
class MeasuredPoint:
    """A point's result.

    Attributes:
        axis, value: of the point.
        is_base: whether the point is the base, which every axis has.
        p50_s: of a call, by trtexec's percentile rule.
        times_s: of every call.
        host_bytes: largest memory of the process, from its start on.
        problem: why there is nothing; None where there is.
    """

    axis: str
    value: int
    is_base: bool
    p50_s: float | None = None
    times_s: tuple[float, ...] = ()
    host_bytes: int | None = None
    problem: str | None = None


def scaling_points(base: StepConfig) -> list[Point]:
    """Every axis through the base; sizes are rounded to multiples of 16 px.

    Raises:
        StepError: a size that no model can have.
    """
    steps = base.num_steps
    points = [Point(axis="batch", value=batch, config=base, num_steps=steps, batch=batch) for batch in _BATCHES]
    for mode in _ANCHOR_MODES:
        config = dataclasses.replace(base, anchor_mode=mode)
        points.append(Point(axis="tubes", value=len(anchor_boxes(mode)), config=config, num_steps=steps))
    points += [Point(axis="steps", value=count, config=base, num_steps=count) for count in range(1, steps + 1)]
    for size in sorted({max(32, 16 * round(share * base.image_size_px / 16)) for share in _SIZES}):
        config = dataclasses.replace(base, image_size_px=size)
        points.append(Point(axis="image size", value=size, config=config, num_steps=steps))
    for frames in sorted({*_CHUNK_FRAMES, base.chunk_frames}):
        config = dataclasses.replace(base, chunk_frames=frames)
        points.append(Point(axis="clip length", value=config.clip_frames, config=config, num_steps=steps))
    return points


def measure_points(
    points: Sequence[Point],
    bundles: Sequence[Path],
    *,
    base: StepConfig,
    backend: str,
    threads: int | None,
    min_runs: int,
    min_s: float,
    scratch: Path,
    progress: Callable[[int, str], None] = lambda _done, _what: None,
) -> list[MeasuredPoint]:
    """Runs every point in a process of its own, those of an axis in rounds, on noise.

    Args:
        points: what `scaling_points` gave, or some of them.
        bundles: of each point, in fp32 with a fused graph.
        base: the config that the axes go through.
        backend: of `configurations.BENCH_BACKENDS`, for bundles.
        threads: CPU threads; None for the library's choice.
        min_runs, min_s: calls and seconds of each, at least.
        scratch: folder for the clips.
        progress: is called with how many points are done, and which axis is next.
    """
    results: list[MeasuredPoint] = []
    for axis in dict.fromkeys(point.axis for point in points):
        progress(len(results), axis)
        chosen = [(point, bundle) for point, bundle in zip(points, bundles, strict=True) if point.axis == axis]
        clips = [_write_clip(point.config, scratch) for point, _ in chosen]
        configurations = [
            BenchConfiguration(
                model=str(bundle),
                backend=backend,
                precision="fp32",
                loop="fused",
                device="cpu",
                batch=point.batch,
                threads=threads,
            )
            for point, bundle in chosen
        ]
        rows = measure(configurations, clips, min_runs=min_runs, min_s=min_s)
        results += [_measured(point, row, base) for (point, _), row in zip(chosen, rows, strict=True)]
    return results


def _write_clip(config: StepConfig, folder: Path) -> Path:
    """Noise for this model; one file for all models that take the same."""
    shape = (1, config.clip_frames, config.image_size_px, config.image_size_px, 3)
    path = folder / f"clip_{config.clip_frames}x{config.image_size_px}.npy"
    np.save(path, np.random.RandomState(0).randint(0, 256, shape, np.uint8))
    return path


def _measured(point: Point, row: Row, base: StepConfig) -> MeasuredPoint:
    return MeasuredPoint(
        axis=point.axis,
        value=point.value,
        is_base=point.config == base and point.num_steps == base.num_steps and point.batch == 1,
        p50_s=percentile(row.times_s, 50) if row.problem is None else None,
        times_s=tuple(row.times_s),
        host_bytes=row.host_bytes,
        problem=row.problem,
    )


def growth(results: Sequence[MeasuredPoint], axis: str) -> float | None:
    """By what power of the value the time grows along an axis, by least squares; 1 is proportional.

    None where fewer than two values were measured.
    """
    measured = [(row.value, row.p50_s) for row in results if row.axis == axis and row.p50_s is not None]
    if len({value for value, _ in measured}) < 2:
        return None
    values, times = zip(*measured, strict=True)
    return float(np.polyfit(np.log(values), np.log(times), 1)[0])


def write_scaling(
    results: Sequence[MeasuredPoint], path: Path, *, base: StepConfig, backend: str, threads: int | None
) -> None:
    """As JSON, atomically."""
    content: dict[str, Any] = {
        "schema_version": SCHEMA,
        "machine": machine(),
        "versions": versions(),
        "backend": backend,
        "threads": threads,
        "base": base.to_dict(),
        "growth": {axis: growth(results, axis) for axis in AXES},
        "points": [dataclasses.asdict(row) for row in results],
    }
    with atomic_path(path) as scratch:
        scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def scaling_figure(results: Sequence[MeasuredPoint], title: str) -> "Figure":
    """A panel for each axis that has points: time from zero on the left, memory on the right, the base hollow."""
    from matplotlib.figure import Figure

    axes_of = [axis for axis in AXES if any(row.axis == axis and row.p50_s is not None for row in results)]
    rows = math.ceil(len(axes_of) / 2)
    figure = Figure(figsize=(8.5, 0.7 + 2.9 * rows), dpi=120, layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for panel, axis in zip(panels, axes_of, strict=False):
        _draw_axis(panel, [row for row in results if row.axis == axis and row.p50_s is not None], axis)
    for panel in panels[len(axes_of) :]:
        panel.set_axis_off()
    figure.suptitle(title, fontsize=11)
    return figure


def _draw_axis(axes: "Axes", rows: list[MeasuredPoint], axis: str) -> None:
    memory = axes.twinx()
    values = [row.value for row in rows]
    times_ms = [1e3 * (row.p50_s or 0) for row in rows]
    megabytes = [(row.host_bytes or 0) / 1e6 for row in rows]
    memory.plot(values, megabytes, color=_MEMORY_COLOR, marker="s", markersize=4, linestyle="--", linewidth=1.2)
    axes.plot(values, times_ms, color=_TIME_COLOR, marker="o", markersize=5, linewidth=1.6)
    base = [row for row in rows if row.is_base]
    ringed = [row.value for row in base], [1e3 * (row.p50_s or 0) for row in base]
    axes.scatter(*ringed, s=90, facecolor="none", edgecolor=_TIME_COLOR, linewidth=1.2)
    power = growth(rows, axis)
    axes.set_title("" if power is None else f"time grows with the power {power:.2f}", fontsize=9)
    axes.set_xlabel(AXES[axis], fontsize=9)
    axes.set_ylabel("ms a call", color=_TIME_COLOR, fontsize=9)
    memory.set_ylabel("MB at most, loading included", color=_MEMORY_COLOR, fontsize=9)
    axes.set_xticks(values)
    axes.set_ylim(0, 1.15 * max(times_ms))
    memory.set_ylim(0, 1.15 * max(*megabytes, 1))
    for side in (axes, memory):
        side.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.set_zorder(memory.get_zorder() + 1)
    axes.patch.set_visible(False)
