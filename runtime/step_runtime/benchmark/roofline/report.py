"""What `step-bench roofline` shows: a table, the same in Markdown, and a plot."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from step_runtime.benchmark.roofline.roofline import Roofline, StageLimit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # told apart also by the colour-blind
_MARKERS = ("o", "s", "^", "D")
_LEAST_BYTES = "least\nMB"
_NEAR, _NEAR_RATE = 1.3, 2.0  # ratios of intensities and of rates that one label is put to


def roofline_table(result: Roofline) -> Table:
    """A row for each stage, with milliseconds and the share of the limit of each library; fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    kept = [index for index, column in enumerate(_columns(result)) if column != _LEAST_BYTES]
    for index in kept:
        table.add_column(_columns(result)[index], justify="right" if index else "left", no_wrap=True)
    for limit in result.limits:
        cells = _cells(limit, result)
        table.add_row(*(escape(cells[index]) for index in kept))
    return table


def roofline_markdown(result: Roofline) -> str:
    """The whole table and the lines below it."""
    columns = [column.replace("-\n", "").replace("\n", " ") for column in _columns(result)]
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    lines += [f"| {' | '.join(_cells(limit, result))} |" for limit in result.limits]
    return "\n".join([*lines, "", *(f"- {line}" for line in summary_lines(result))]) + "\n"


def summary_lines(result: Roofline) -> list[str]:
    """The machine, the floor of a clip, how far each library is from it, and what was not measured."""
    peaks, precision = result.peaks, result.precision
    lines = [
        f"{peaks.name}: {peaks.rate(precision) / 1e9:.0f} G multiply-adds/s in {precision}, "
        f"{peaks.bytes_per_s / 1e9:.0f} GB/s ({peaks.source})",
    ]
    for product in peaks.products:
        rate = product.multiply_adds_per_s
        how = f"not measured: {product.problem}" if rate is None else f"{rate / 1e9:.0f} G/s at {product.size}"
        lines.append(f"{product.library}'s {product.precision} matrix product: {how}")
    calls = "a clip" if result.batch == 1 else f"{result.batch} clips"
    lines.append(
        f"{calls}: at least {_ms(result.floor_s)} ms; its multiply-adds alone, at the peak, {_ms(result.product_s)} ms"
    )
    moved = sum(limit.work.bytes for limit in result.stages)
    lines.append(
        f"if no operator were fused with the next: {moved / 1e9:.2f} GB, {_ms(moved / peaks.bytes_per_s)} ms to move"
    )
    if result.turns_per_s is not None:
        reached = f"{result.turns_per_s / 1e9:.0f} G/s"
        lines.append(f"in rounds with the stages, a matrix product reached {reached} (the best library's median)")
    for times in result.times:
        if times.problem is not None:
            lines.append(f"{times.backend}: not measured: {times.problem}")
            continue
        whole_s, over_turns = result.whole_s(times), result.over_turns(times)
        line = f"{times.backend}: {_ms(whole_s)} ms, {whole_s / result.product_s:.2f} of the multiply-adds alone"
        lines.append(line if over_turns is None else f"{line}, {over_turns:.2f} at the product's speed in rounds")
    return lines


def draw_roofline(axes: "Axes", result: Roofline) -> None:
    """Both roofs, and the stages as points: filled where a library reached them, hollow on the roof without times.

    Stages without multiply-adds have no intensity and are left out.
    """
    limits = [limit for limit in result.stages if limit.work.multiply_adds]
    peak, bandwidth = result.peaks.rate(result.precision), result.peaks.bytes_per_s
    ridge = peak / bandwidth
    low = min(ridge / 10, *(limit.intensity / 3 for limit in limits))
    high = max(ridge, *(limit.intensity for limit in limits)) * 3
    axes.loglog([low, ridge, high], [low * bandwidth, peak, peak], color="black", linewidth=1.5, zorder=1)
    _write(axes, f"{result.precision} peak: {peak / 1e9:.0f} G/s", (high, peak), offset=(-4, 5), ha="right")
    middle = math.sqrt(low * ridge)
    _write(axes, f"memory: {bandwidth / 1e9:.0f} GB/s", (middle, middle * bandwidth), offset=(8, -8), ha="left")
    shown = result.measured
    lowest = [limit.attainable_per_s for limit in limits]
    for index, times in enumerate(shown):
        reached = [limit.achieved_per_s(times.median_s(limit.stage)) for limit in limits]
        lowest += reached
        color, marker = _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]
        points = [limit.intensity for limit in limits], reached
        axes.scatter(*points, s=36, color=color, marker=marker, label=times.backend, zorder=3, alpha=0.85)
    if not shown:
        points = [limit.intensity for limit in limits], [limit.attainable_per_s for limit in limits]
        axes.scatter(*points, s=36, facecolor="white", edgecolor="black", label="at most", zorder=3)
    axes.set_ylim(min(low * bandwidth, min(lowest) / 4), peak * 2.5)
    axes.set_xlim(low, high)
    bottoms = {
        limit.stage: min([limit.achieved_per_s(t.median_s(limit.stage)) for t in shown] or [limit.attainable_per_s])
        for limit in limits
    }
    for group in _groups(limits, bottoms):
        x = math.exp(sum(math.log(limit.intensity) for limit in group) / len(group))
        bottom = min(bottoms[limit.stage] for limit in group)
        _write(axes, "\n".join(limit.stage for limit in group), (x, bottom), offset=(0, -7), ha="center", va="top")
    calls = "a clip" if result.batch == 1 else f"{result.batch} clips"
    axes.set(
        xlabel="multiply-adds / byte that has to move",
        ylabel="multiply-adds / s",
        title=f"{result.peaks.name}: stages of {calls}",
    )
    axes.grid(which="major", alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)


def _write(
    axes: "Axes",
    text: str,
    at: tuple[float, float],
    *,
    offset: tuple[float, float],
    ha: Literal["left", "center", "right"],
    va: Literal["baseline", "top"] = "baseline",
) -> None:
    axes.annotate(
        text, at, xytext=offset, textcoords="offset points", ha=ha, va=va, fontsize=8, color="#333333", zorder=4
    )


def roofline_figure(result: Roofline) -> "Figure":
    """One plot on a page of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), dpi=130, layout="constrained")
    draw_roofline(figure.subplots(), result)
    return figure


def _groups(limits: Sequence[StageLimit], rates: Mapping[str, float]) -> list[list[StageLimit]]:
    """Stages whose points nearly meet, which share a label."""
    groups: list[list[StageLimit]] = []
    for limit in limits:
        for group in groups:
            apart = abs(math.log(limit.intensity / group[0].intensity))
            above = abs(math.log(rates[limit.stage] / rates[group[0].stage]))
            if apart <= math.log(_NEAR) and above <= math.log(_NEAR_RATE):
                group.append(limit)
                break
        else:
            groups.append([limit])
    return groups


def _columns(result: Roofline) -> list[str]:
    own = ["stage", "G mul-\nadds", _LEAST_BYTES, "per\nbyte", "bound\nby", "least\nms"]
    return own + [cell for times in result.measured for cell in (f"{times.backend}\nms", "of\nlimit")]


def _cells(limit: StageLimit, result: Roofline) -> list[str]:
    cells = [
        limit.stage,
        f"{limit.work.multiply_adds / 1e9:.1f}",
        f"{limit.work.least_bytes / 1e6:.1f}",
        f"{limit.intensity:.0f}",
        "memory" if limit.is_memory_bound else "compute",
        _ms(limit.floor_s),
    ]
    for times in result.measured:
        median_s = times.median_s(limit.stage)
        cells += [_ms(median_s), f"{100 * limit.fraction(median_s):.0f} %"]
    return cells


def _ms(time_s: float) -> str:
    """Three digits that matter."""
    value = 1e3 * time_s
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
