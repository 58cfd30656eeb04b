"""Draws the report's figures as PNG (torch-free; needs matplotlib)."""

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from step.classes import class_group, class_name
from step.evaluation.confusion import Confusion
from step.evaluation.frame_map import ClassResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart.
_GROUP_COLOR = {
    "person movement": "#0072B2",
    "object manipulation": "#E69F00",
    "person interaction": "#009E73",
    "other": "#666666",
}
_MOST_POINTS = 400  # of a curve; more cannot be seen
_MOST_CONFUSED = 24
_NAME_LENGTH = 26
_DPI = 110


def draw_bars(results: dict[int, ClassResult], names: dict[int, str]) -> bytes:
    """Draws the average precision of every class, best first, coloured by AVA's kinds of action."""
    from matplotlib.patches import Patch

    ranked = sorted(results.values(), key=lambda result: result.average_precision)
    figure = _figure(8, 1.2 + 0.23 * len(ranked))
    axes = figure.add_subplot()
    values = [result.average_precision for result in ranked]
    places = np.arange(len(ranked))
    axes.barh(places, values, color=[_GROUP_COLOR[class_group(result.label)] for result in ranked])
    axes.set_yticks(places, [_name(result.label, names) for result in ranked], fontsize=8, parse_math=False)
    for place, result in enumerate(ranked):
        text = f" {result.average_precision:.3f}   {result.num_truth} true"
        axes.text(result.average_precision, place, text, va="center", fontsize=7)
    axes.set_xlim(0, max(1.0, 1.15 * max(values, default=1)))
    axes.set_ylim(-0.7, len(ranked) - 0.3)
    axes.set_xlabel("average precision")
    groups = list(dict.fromkeys(class_group(result.label) for result in reversed(ranked)))
    handles = [Patch(color=_GROUP_COLOR[group]) for group in groups]
    if groups:
        figure.legend(handles, groups, loc="outside upper center", ncols=len(groups), fontsize=8)
    return _png(figure)


def draw_curves(results: dict[int, ClassResult], names: dict[int, str]) -> bytes:
    """Draws precision against recall of every class, a panel each, with the envelope whose area counts."""
    ranked = sorted(results.values(), key=lambda result: -result.average_precision)
    columns = min(6, max(1, len(ranked)))
    rows = max(1, -(-len(ranked) // columns))
    figure = _figure(1.75 * columns + 0.4, 1.75 * rows + 0.5)
    axes_list = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).reshape(-1)
    for axes, result in zip(axes_list, ranked, strict=False):
        envelope = np.maximum.accumulate(result.precision[::-1])[::-1]
        if len(envelope):
            shown = _thinned(len(envelope))
            recall, height = np.append(0, result.recall[shown]), np.append(envelope[0], envelope[shown])
            color = _GROUP_COLOR[class_group(result.label)]
            axes.plot(result.recall[shown], result.precision[shown], color="#bbbbbb", linewidth=0.8)
            axes.step(recall, height, where="pre", color=color, linewidth=1.3)
        title = f"{_name(result.label, names)}\nAP {result.average_precision:.3f}"
        axes.set_title(title, fontsize=7, parse_math=False)
        axes.tick_params(labelsize=6)
        axes.grid(alpha=0.3)
    for axes in axes_list[len(ranked) :]:
        axes.axis("off")
    axes_list[0].set(xlim=(0, 1), ylim=(0, 1.02))
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    return _png(figure)


def draw_confusion(table: Confusion, names: dict[int, str]) -> bytes:
    """Draws what people who do one thing also do, beside what was detected at them; the classes with most people."""
    chosen = np.sort(np.argsort(-table.count, kind="stable")[:_MOST_CONFUSED])
    labels = [_name(table.labels[place], names) for place in chosen.tolist()]
    side = max(3.0, 1.9 + 0.24 * len(labels))
    figure = _figure(2 * side + 1.2, side + 0.6)
    left, right = figure.subplots(1, 2, sharey=True)
    pick = np.ix_(chosen, chosen)
    _draw_matrix(left, table.truth[pick], labels, "who does the row's also does\n(ground truth)")
    image = _draw_matrix(right, table.found[pick], labels, "detected at\nwho does the row's")
    left.set_yticks(range(len(labels)), labels, fontsize=7, parse_math=False)
    figure.colorbar(image, ax=[left, right], label="share of people", shrink=0.8)
    return _png(figure)


def _draw_matrix(axes: "Axes", values: NDArray[np.float64], labels: list[str], title: str) -> Any:
    image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7, parse_math=False)
    axes.set_title(title, fontsize=8)
    if len(labels) <= 12:
        for (row, column), value in np.ndenumerate(values):
            color = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6, color=color)
    return image


def _name(label: int, names: dict[int, str]) -> str:
    name = names.get(label) or class_name(label)
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def _thinned(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(np.int64))


def _figure(width_in: float, height_in: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), dpi=_DPI, layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # class names may be in any script
        figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()
