"""Charts of HTML reports: where marks lie, and what is left out."""

import numpy as np
import pytest

from step.pages.charts import Curve, Matrix, Scatter, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 23.0, ["0", "5", "10", "15", "20"]),
        (0.848, 0.858, ["0.848", "0.850", "0.852", "0.854", "0.856", "0.858"]),
        (0.0, 0.4, ["0.0", "0.1", "0.2", "0.3", "0.4"]),
        (0.0, 1234.0, ["0", "500", "1000"]),
    ],
)
def test_round_numbers(low, high, expected):
    found = ticks(low, high)
    assert [text for _, text in found] == expected
    assert [value for value, _ in found] == pytest.approx([float(text) for text in expected])


def test_a_curve_and_its_envelope():
    """Precision upwards in a panel of 100 x 100; the envelope is level from the recall before."""
    recall, precision = np.array([0.25, 0.25, 0.5]), np.array([1.0, 0.5, 0.75])
    curve = Curve.of("a", "", "blue", recall=recall, precision=precision)
    assert curve.measured == "25,0 25,50 50,25"
    assert curve.envelope == "0,0 25,0 25,25 25,25 25,25 50,25"
    many = np.linspace(0, 1, 100_000)
    assert len(Curve.of("a", "", "blue", recall=many, precision=1 - many).measured.split()) == 80
    assert Curve.of("a", "", "blue", recall=many[:0], precision=many[:0]).measured == ""


def test_a_matrix_has_its_shares_where_they_belong():
    chart = Matrix.of("t", ["a", "b"], np.array([[1.0, 0.25], [0.0, 0.5]]))
    assert [(cell.text, cell.opacity) for cell in chart.cells] == [
        ("a, a: 100 %", "1.00"),
        ("a, b: 25 %", "0.25"),
        ("b, b: 50 %", "0.50"),  # what is nothing has no cell
    ]
    right, below = chart.cells[1], chart.cells[2]
    assert (right.x_px, right.y_px) == (chart.left_px + chart.cell_px, chart.top_px)
    assert (below.x_px, below.y_px) == (chart.left_px + chart.cell_px, chart.top_px + chart.cell_px)


def test_points_lie_within_the_plot():
    points = [("slow", "grey", 5.0, 0.9), ("fast", "green", 20.0, 0.85)]
    chart = Scatter.of(points, front=[(5.0, 0.9), (20.0, 0.85)], x_label="x", y_label="y")
    slow, fast = chart.points
    assert 48 < slow.x < fast.x < 350
    assert 20 < slow.y < fast.y < 230  # more is higher, and y points down
    assert chart.front == f"{slow.x},{slow.y} {fast.x},{fast.y}"
    assert [label.text for label in chart.labels] == ["1", "2"]
    (alone,) = Scatter.of(points[:1], front=[], x_label="x", y_label="y").points
    assert 20 < alone.y < 230


def test_points_that_nearly_meet_share_a_label():
    points = [(str(x), "grey", x, 0.5) for x in (20.0, 19.9, 19.8, 6.3, 5.1, 5.0)]
    chart = Scatter.of(points, front=[], x_label="x", y_label="y")
    assert [label.text for label in chart.labels] == ["5, 6", "4", "1, 2, 3"]
    assert [label.y - chart.points[0].y for label in chart.labels] == [-9, 18, -9]  # 4 would lie on 5, 6
    assert chart.labels[2].x < 350 - 20
