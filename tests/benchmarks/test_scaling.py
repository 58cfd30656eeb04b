"""Scaling: which points, what is measured of them, the plot, and the script's bad input."""

import dataclasses
import json

import numpy as np
import pytest
import scaling
from helpers import TINY, assert_one_error, run_command
from scaling_points import (
    AXES,
    MeasuredPoint,
    growth,
    measure_points,
    scaling_figure,
    scaling_points,
    write_scaling,
)

from step import StepConfig


def test_every_axis_changes_one_thing():
    base = StepConfig(width=0.125, image_size_px=160)
    points = scaling_points(base)
    values = {axis: [point.value for point in points if point.axis == axis] for axis in AXES}
    assert values == {
        "batch": [1, 2, 4, 8],
        "tubes": [34, 59, 84, 109],
        "steps": [1, 2, 3],
        "image size": [80, 128, 160, 240],
        "clip length": [12, 24, 36, 48, 72],
    }
    changes = {"tubes": "anchor_mode", "image size": "image_size_px", "clip length": "chunk_frames"}
    for point in points:
        changed = {
            field.name
            for field in dataclasses.fields(base)
            if getattr(point.config, field.name) != getattr(base, field.name)
        }
        assert changed <= {changes.get(point.axis, "")}
        assert point.axis in ("batch", "steps") or (point.batch, point.num_steps) == (1, 3)
    for axis in AXES:
        assert sum(p.model == (base, 3) and p.batch == 1 for p in points if p.axis == axis) == 1


def test_points_that_differ_in_the_batch_share_a_model():
    points = scaling_points(TINY)
    assert len({point.model for point in points if point.axis == "batch"}) == 1


def test_measuring(tiny_bundle, half_bundle, tmp_path):
    """Two batches of one model; a bundle for two clips at a time cannot run one of them, which is a line."""
    points = [point for point in scaling_points(TINY) if point.axis == "batch"][:2]
    common = {"base": TINY, "backend": "onnxruntime", "threads": 1, "min_runs": 2, "min_s": 0.0, "scratch": tmp_path}
    one, two = measure_points(points, [tiny_bundle, tiny_bundle], **common)
    assert (one.is_base, two.is_base) == (True, False)
    assert one.p50_s < two.p50_s
    assert one.host_bytes > 5e7
    assert len(two.times_s) >= 2
    (bad,) = measure_points(points[:1], [tmp_path / "nothing"], **common)
    assert bad.p50_s is None
    assert "nothing" in bad.problem


def test_memory_is_the_workers_not_its_parents(tiny_bundle, tmp_path):
    """A parent of more than 800 MB, whose size Linux counts as a child's that it starts."""
    ballast = np.ones(10**8)
    points = scaling_points(TINY)[:1]
    common = {"base": TINY, "backend": "onnxruntime", "threads": 1, "min_runs": 1, "min_s": 0.0, "scratch": tmp_path}
    (row,) = measure_points(points, [tiny_bundle], **common)
    assert row.host_bytes < ballast.nbytes / 2


def _row(axis, value, time_s, **more):
    return MeasuredPoint(axis=axis, value=value, is_base=value == 1, p50_s=time_s, host_bytes=10**8, **more)


def test_growth():
    rows = [_row("batch", value, 0.5 * value**1.5) for value in (1, 2, 4)]
    assert growth(rows, "batch") == pytest.approx(1.5)
    assert growth(rows[:1], "batch") is None
    rows.append(MeasuredPoint(axis="batch", value=8, is_base=False, problem="no memory"))
    assert growth(rows, "batch") == pytest.approx(1.5)


def test_the_page_and_the_file(tmp_path):
    rows = [_row(axis, value, value / 10) for axis in list(AXES)[:3] for value in (1, 2, 4)]
    rows.append(MeasuredPoint(axis="steps", value=8, is_base=False, problem="no memory"))
    figure = scaling_figure(rows, "title")
    drawn = [axes for axes in figure.axes if axes.get_ylabel() == "ms a call"]
    assert [axes.get_xlabel() for axes in drawn] == list(AXES.values())[:3]
    for axes in drawn:
        assert axes.lines[0].get_xydata().tolist() == [[1, 100], [2, 200], [4, 400]]
        assert axes.get_ylim()[0] == 0
        assert axes.get_title() == "time grows with the power 1.00"
    write_scaling(rows, tmp_path / "s.json", base=TINY, backend="openvino", threads=2)
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["growth"]["batch"] == pytest.approx(1)
    assert content["growth"]["image size"] is None
    assert content["points"][-1]["problem"] == "no memory"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--axes", "batch,colour"), "--axes has 'colour'; give some of batch,tubes"),
        (("--checkpoint", "none.pth"), "none.pth"),
        (("--image-size", "8"), "image_size_px is 8; it must be 32 to"),
        (("--plot", "/proc/x/y.png"), "cannot write /proc/x/y.png"),
    ],
)
def test_bad_input(words, said, capsys):
    assert_one_error(run_command(scaling.main, capsys, *words), said)
