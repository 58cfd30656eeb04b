"""Lays out the charts of HTML reports; step/pages/charts.html.jinja draws them.

Text keeps its size however wide the window is: bars have percents for lengths, other charts their own pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Color = Literal["blue", "orange", "green", "grey", "red", "pink"]
"""Classes of step/pages/style.css, which have a shade for light and one for dark pages."""
MOST_BARS = 100
MOST_PANELS = 60
MOST_ROWS = 500
_MOST_POINTS = 80  # of a curve; more cannot be seen
_SLACK = 1e-9  # differences of decimals are not exact
_LEAST_SHARE = 0.005  # less looks like nothing
_CELL_PX, _LETTER_PX, _MARGIN_PX = 17, 6.2, 10
_PLOT_LEFT, _PLOT_RIGHT, _PLOT_TOP, _PLOT_BOTTOM = 48.0, 350.0, 20.0, 230.0
_LINE_PX = 14  # of text
_NEAR_PX = 16  # points that are nearer have one label
_ABOVE, _BELOW = -9, 18  # where a label stands


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar with its name and figures; lengths are in percent of the width."""

    name: str
    text: str
    color: Color
    percent: float
    spread_percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision against recall in a panel of 100 x 100, as SVG's points: as measured, and the envelope that counts."""

    name: str
    text: str
    color: Color
    measured: str
    envelope: str

    @classmethod
    def of(
        cls, name: str, text: str, color: Color, *, recall: NDArray[np.float64], precision: NDArray[np.float64]
    ) -> "Curve":
        """Thins both curves to what can be seen.

        Args:
            name, text, color: see the class.
            recall, precision: [R] after each detection, best first.
        """
        if not len(recall):
            return cls(name=name, text=text, color=color, measured="", envelope="")
        shown = np.unique(np.linspace(0, len(recall) - 1, min(len(recall), _MOST_POINTS)).astype(np.int64))
        height = np.maximum.accumulate(precision[::-1])[::-1]
        # The envelope is what is reached at this recall or beyond: level from the recall before.
        before = np.append(0.0, recall[shown][:-1])
        corners = np.stack([np.stack([before, recall[shown]], 1), np.repeat(height[shown, None], 2, 1)], -1)
        return cls(
            name=name,
            text=text,
            color=color,
            measured=_points(np.stack([recall[shown], precision[shown]], 1)),
            envelope=_points(corners.reshape(-1, 2)),
        )


@dataclass(frozen=True)
class Cell:
    """A cell of a matrix; the stronger its colour, the larger the share."""

    x_px: int
    y_px: int
    opacity: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Shares of rows' things that are columns' things too."""

    title: str
    names: Sequence[str]
    left_px: int
    top_px: int
    side_px: int
    cell_px: int
    cells: Sequence[Cell]

    @classmethod
    def of(cls, title: str, names: Sequence[str], shares: NDArray[np.float64]) -> "Matrix":
        """Lays out a matrix with names beside it and above it.

        Args:
            title: says what rows and columns are.
            names: [N] of both.
            shares: [N, N] in [0, 1].
        """
        label_px = math.ceil(_LETTER_PX * max(map(len, names), default=0)) + _MARGIN_PX
        cells = [
            Cell(
                label_px + column * _CELL_PX,
                label_px + row * _CELL_PX,
                f"{share:.2f}",
                f"{names[row]}, {names[column]}: {100 * share:.0f} %",
            )
            for (row, column), share in np.ndenumerate(shares)
            if share >= _LEAST_SHARE
        ]
        return cls(
            title=title,
            names=names,
            left_px=label_px,
            top_px=label_px,
            side_px=_CELL_PX * len(names),
            cell_px=_CELL_PX,
            cells=cells,
        )


@dataclass(frozen=True)
class Tick:
    """A line of the grid with its number."""

    place: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a plot."""

    name: str
    color: Color
    x: float
    y: float


@dataclass(frozen=True)
class Label:
    """Numbers of points that nearly coincide, above or below them."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Points in a plot of 360 x 270, some of them joined by a line."""

    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    points: Sequence[Point]
    labels: Sequence[Label]
    front: str

    @classmethod
    def of(
        cls,
        points: Sequence[tuple[str, Color, float, float]],
        *,
        front: Sequence[tuple[float, float]],
        x_label: str,
        y_label: str,
    ) -> "Scatter":
        """Lays out points; x begins at 0, y where the points do.

        Args:
            points: name, colour, x and y of each; at least one.
            front: x and y of those that are joined, in order.
            x_label, y_label: of the axes.
        """
        values = [y for *_, y in points]
        room = max(0.005, max(values) - min(values)) / 2
        x_high, y_low, y_high = 1.08 * max(x for _, _, x, _ in points), min(values) - room, max(values) + room

        def place_x(x: float) -> float:
            return round(_PLOT_LEFT + (_PLOT_RIGHT - _PLOT_LEFT) * x / x_high, 1)

        def place_y(y: float) -> float:
            return round(_PLOT_BOTTOM - (_PLOT_BOTTOM - _PLOT_TOP) * (y - y_low) / (y_high - y_low), 1)

        placed = [Point(name=name, color=color, x=place_x(x), y=place_y(y)) for name, color, x, y in points]
        return cls(
            x_label=x_label,
            y_label=y_label,
            x_ticks=[Tick(place_x(value), text) for value, text in ticks(0.0, x_high)],
            y_ticks=[Tick(place_y(value), text) for value, text in ticks(y_low, y_high)],
            points=placed,
            labels=_labels(placed),
            front=" ".join(f"{place_x(x)},{place_y(y)}" for x, y in front),
        )


def _labels(points: Sequence[Point]) -> list[Label]:
    """Numbers the points from 1, those that nearly meet together; a label is below where another one is above."""
    groups: list[list[int]] = []
    for place in sorted(range(len(points)), key=lambda place: points[place].x):
        first = points[groups[-1][0]] if groups else None
        if first is not None and math.hypot(points[place].x - first.x, points[place].y - first.y) < _NEAR_PX:
            groups[-1].append(place)
        else:
            groups.append([place])
    labels: list[Label] = []
    for group in groups:
        text = ", ".join(str(place + 1) for place in sorted(group))
        width_px, ys = _LETTER_PX * len(text), [points[place].y for place in group]
        x = min(points[group[-1]].x, _PLOT_RIGHT - width_px / 2)
        above, below = (Label(round(x, 1), round(y, 1), text) for y in (min(ys) + _ABOVE, max(ys) + _BELOW))
        labels.append(below if any(_overlap(above, other) for other in labels) else above)
    return labels


def _overlap(one: Label, other: Label) -> bool:
    width_px = _LETTER_PX * (len(one.text) + len(other.text)) / 2 + _LETTER_PX
    return abs(one.x - other.x) < width_px and abs(one.y - other.y) < _LINE_PX


def ticks(low: float, high: float, *, about: int = 5) -> list[tuple[float, str]]:
    """Gives round numbers between two others, and how they are written.

    Args:
        low, high: the ends; `high` is the greater.
        about: how many are wanted.
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - _SLACK))
    digits = max(0, -math.floor(math.log10(step)))
    numbers = range(math.ceil(low / step - _SLACK), math.floor(high / step + _SLACK) + 1)
    return [(number * step, f"{number * step:.{digits}f}") for number in numbers]


def _points(places: NDArray[np.float64]) -> str:
    """Writes [R, 2] places of [0, 1] as SVG's points of a panel, whose y points downwards."""
    x, y = np.clip(places, 0, 1).T
    return " ".join(f"{a:g},{b:g}" for a, b in zip(np.round(100 * x, 1), np.round(100 * (1 - y), 1), strict=True))
