"""Figures of a benchmark as PNG: time with its spread, and accuracy against speed (needs matplotlib)."""

import io
from typing import TYPE_CHECKING

from step_runtime.benchmark.results import ResultRow, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {  # Okabe and Ito's colours, which people with any colour vision tell apart
    "torch": "#666666",
    "onnxruntime": "#0072B2",
    "openvino": "#009E73",
    "tensorrt": "#D55E00",
}
_OTHER_COLOR = "#CC79A7"
_DPI = 110
_ABOVE_BELOW = ((0, 7), (0, -15))  # where a point's number stands, in rounds from left to right: points often coincide


def draw_times(results: Results) -> bytes:
    """Median of every configuration, with a line to its 95th percentile; fastest on top."""
    rows = sorted(_measured(results), key=lambda row: -(row.p50_ms or 0) / row.configuration["batch"])
    figure = _figure(8, 1.2 + 0.3 * len(rows))
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        assert row.p50_ms is not None
        assert row.p95_ms is not None
        clips = row.configuration["batch"]
        p50_ms, p95_ms = row.p50_ms / clips, row.p95_ms / clips
        axes.barh(place, p50_ms, color=_color(row))
        axes.plot([p50_ms, p95_ms], [place, place], color="black", linewidth=1)
        axes.text(max(p50_ms, p95_ms), place, f"  {p50_ms:.1f} ms, x{row.ratio:.3f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8, parse_math=False)
    axes.set_xlim(0, 1.3 * max((row.p95_ms or 0) / row.configuration["batch"] for row in rows))
    axes.set_xlabel("ms a clip: median, line to the 95th percentile")
    axes.set_title(f"ratios to {results.baseline}", fontsize=9, loc="left")
    return _png(figure)


def draw_front(results: Results) -> bytes | None:
    """mAP against speed; what nothing else beats in both is joined by a line. None where no row has a mAP."""
    rows = sorted((row for row in _measured(results) if row.mean_ap is not None), key=lambda row: row.clips_per_s or 0)
    if not rows:
        return None
    figure = _figure(7, 4.2)
    axes = figure.add_subplot()
    for number, row in enumerate(rows, 1):
        point = (row.clips_per_s or 0.0, row.mean_ap or 0.0)
        axes.scatter(*point, color=_color(row), zorder=3, s=60)
        place = _ABOVE_BELOW[number % len(_ABOVE_BELOW)]
        axes.annotate(str(number), point, place, textcoords="offset points", ha="center")
    front = pareto_front(rows)
    axes.plot([row.clips_per_s or 0 for row in front], [row.mean_ap or 0 for row in front], color="black", linewidth=1)
    means = [row.mean_ap or 0 for row in rows]
    room = max(0.005, max(means) - min(means))
    axes.set_ylim(min(means) - room, max(means) + room)
    axes.set_xlim(0, 1.08 * max(row.clips_per_s or 0 for row in rows))
    axes.grid(alpha=0.3)
    axes.set_xlabel("clips a second")
    axes.set_ylabel(f"frame-mAP@0.5 on {results.data}")
    names = "\n".join(f"{number}  {row.name}" for number, row in enumerate(rows, 1))
    figure.text(1.01, 0.95, names, va="top", fontsize=8, parse_math=False)
    return _png(figure)


def pareto_front(rows: list[ResultRow]) -> list[ResultRow]:
    """The rows that no other is at least as fast and as accurate as, and better in one; slowest first."""
    points = [(row.clips_per_s or 0.0, row.mean_ap or 0.0) for row in rows]
    front = [
        row
        for row, point in zip(rows, points, strict=True)
        if not any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points)
    ]
    return sorted(front, key=lambda row: row.clips_per_s or 0.0)


def _measured(results: Results) -> list[ResultRow]:
    return [row for row in results.rows if row.problem is None]


def _color(row: ResultRow) -> str:
    return next((color for name, color in _COLORS.items() if row.name.startswith(name)), _OTHER_COLOR)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
    return buffer.getvalue()
