"""Lays out the charts of a benchmark's page: time with its spread, and accuracy against speed."""

from step.pages.charts import MOST_BARS, Bar, Color, Scatter
from step.pages.page import FirstRows
from step_runtime.benchmark.results import ResultRow, Results

_COLORS: dict[str, Color] = {"torch": "grey", "onnxruntime": "blue", "openvino": "green", "tensorrt": "red"}
_OTHER_COLOR: Color = "pink"
_LONGEST_PERCENT = 98.0  # of the width, where the line to the 95th percentile ends
_MOST_POINTS = 30


def library_colors(results: Results) -> dict[str, Color]:
    """Gives the colours of the libraries that have rows."""
    return {name: color for name, color in _COLORS.items() if any(_color(row) == color for row in results.measured)}


def time_bars(results: Results) -> FirstRows[Bar]:
    """Lays out the median of every configuration a clip, with a line to its 95th percentile; fastest first."""
    rows = sorted(results.measured, key=_p50_ms)
    longest_ms = max((_p95_ms(row) for row in rows[:MOST_BARS]), default=1.0)
    bars = [
        Bar(
            name=row.name,
            text=f"{_p50_ms(row):.1f} ms, x {row.ratio:.3f}",
            color=_color(row),
            percent=round(_LONGEST_PERCENT * _p50_ms(row) / longest_ms, 1),
            spread_percent=round(_LONGEST_PERCENT * _p95_ms(row) / longest_ms, 1),
        )
        for row in rows[:MOST_BARS]
    ]
    return FirstRows(bars, len(rows))


def accuracy_scatter(results: Results) -> Scatter | None:
    """Lays out mAP against speed; what nothing else beats in both is joined. None where no row has a mAP."""
    scored = [row for row in results.measured if row.mean_ap is not None]
    rows = sorted(scored, key=_clips_per_s, reverse=True)[:_MOST_POINTS]
    if not rows:
        return None
    return Scatter.of(
        [(row.name, _color(row), _clips_per_s(row), row.mean_ap or 0.0) for row in rows],
        front=[(_clips_per_s(row), row.mean_ap or 0.0) for row in pareto_front(rows)],
        x_label="clips a second",
        y_label="frame-mAP@0.5",
    )


def pareto_front(rows: list[ResultRow]) -> list[ResultRow]:
    """The rows that no other is at least as fast and as accurate as, and better in one; slowest first."""
    points = [(_clips_per_s(row), row.mean_ap or 0.0) for row in rows]
    front = [
        row
        for row, point in zip(rows, points, strict=True)
        if not any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points)
    ]
    return sorted(front, key=_clips_per_s)


def _p50_ms(row: ResultRow) -> float:
    return (row.p50_ms or 0.0) / float(row.configuration["batch"])


def _p95_ms(row: ResultRow) -> float:
    return (row.p95_ms or 0.0) / float(row.configuration["batch"])


def _clips_per_s(row: ResultRow) -> float:
    return row.clips_per_s or 0.0


def _color(row: ResultRow) -> Color:
    return next((color for name, color in _COLORS.items() if row.name.startswith(name)), _OTHER_COLOR)
