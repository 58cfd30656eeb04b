"""The RoI align kernel's own source on the CPU, against the release, torchvision and the definition in float64."""

import host_kernels
import numpy as np
import pytest
import torch
from step_plugins import PluginError, roi_align
from torchvision_on_cpu import load_torchvision

from step import config
from step.ops.roi_align import tube_roi_align

STRIDE = 16
LAYOUTS = [pytest.param(True, id="channels_last"), pytest.param(False, id="linear")]
NAN, INF = float("nan"), float("inf")


def test_stride_is_the_projects():
    assert roi_align.FEATURE_STRIDE == config.FEATURE_STRIDE


@pytest.mark.parametrize("channels_last", LAYOUTS)
@pytest.mark.parametrize("tactic", roi_align.TACTICS)
def test_equals_golden(channels_last, tactic, golden_ops):
    features, tubes = _golden_inputs(golden_ops)
    found = host_kernels.tube_roi_align(features, tubes, pool_size=7, channels_last=channels_last, tactic=tactic)
    np.testing.assert_allclose(found[:, 0, :, 0], golden_ops["roi_align"], atol=1e-5)


def test_reference_equals_golden(golden_ops):
    features, tubes = _golden_inputs(golden_ops)
    found = roi_align.reference(features, tubes, pool_size=7, dtype=np.float32)
    np.testing.assert_allclose(found[:, 0, :, 0], golden_ops["roi_align"], atol=1e-5)


@pytest.mark.parametrize("channels_last", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("tactic", "channels", "height", "width", "pool_size"),
    [
        (1, 16, 25, 25, 7),
        (2, 70, 13, 31, 7),  # a second, part-filled tile
        (3, 129, 5, 9, 7),
        (1, 3, 1, 1, 7),  # fewer channels than a load takes; a map of one cell
        (2, 6, 2, 32, 3),
        (1, 4, 33, 40, 1),
    ],
)
def test_error_is_at_most_twice_torchvisions(channels_last, dtype, tactic, channels, height, width, pool_size):
    """1,500 boxes each: inside, across and outside the map, of no area, turned round, larger than the map."""
    state = np.random.RandomState(tactic * 1000 + channels)
    frames, tubes = 3, 500
    features = state.standard_normal((1, frames, channels, height, width)).astype(dtype)
    boxes = _boxes(state, frames * tubes, height, width, pool_size).reshape(1, tubes, frames, 4)
    found = host_kernels.tube_roi_align(
        features, boxes, pool_size=pool_size, channels_last=channels_last, tactic=tactic
    )
    exact = _torchvision(features.astype(np.float64), boxes, pool_size)
    # torchvision's own half arithmetic misses by more than 1 (it places the points in half, too); under autocast it
    # computes in float32, after which its result is rounded.
    theirs = np.abs(_torchvision(features.astype(np.float32), boxes, pool_size).astype(dtype) - exact)
    mine = np.abs(found - exact)
    assert found.dtype == dtype
    assert mine.max() <= 2 * theirs.max()
    assert mine.mean() <= 2 * theirs.mean()
    assert mine.max() <= 2 * np.abs(_torchvision(features, boxes, pool_size) - exact).max()
    np.testing.assert_allclose(roi_align.reference(features, boxes, pool_size=pool_size), exact, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_error_is_at_most_twice_that_of_the_matrix_products(dtype):
    """Against `step.ops.roi_align`, which the graphs' function bodies follow; boxes as the validity rule has them."""
    state = np.random.RandomState(5)
    low = state.uniform(0, 300, (2, 50, 3, 2))
    boxes = np.concatenate((low, state.uniform(low + 2, 400)), -1).astype(np.float32)
    features = torch.from_numpy(state.standard_normal((2, 3, 24, 25, 25))).to(dtype)
    exact = tube_roi_align(features.double(), torch.from_numpy(boxes).double(), pool_size=7).numpy()
    theirs = tube_roi_align(features, torch.from_numpy(boxes), pool_size=7).numpy()
    mine = host_kernels.tube_roi_align(features.numpy(), boxes, pool_size=7)
    assert np.abs(mine - exact).max() <= 2 * np.abs(theirs - exact).max()
    np.testing.assert_allclose(roi_align.reference(features.numpy(), boxes, pool_size=7), exact, atol=1e-9)


@pytest.mark.parametrize("channels_last", LAYOUTS)
def test_what_is_not_finite_pools_zeros(channels_last):
    features = np.full((1, 1, 3, 6, 6), 1, np.float32)
    good, bad = (8.0, 8.0, 60.0, 60.0), []
    for value in (NAN, INF, -INF):
        bad += [tuple(value if axis == i else number for axis, number in enumerate(good)) for i in range(4)]
    bad += [(NAN,) * 4, (-INF, -INF, INF, INF), (INF,) * 4]
    tubes = np.array([good, *bad], np.float32)[None, :, None]
    found = host_kernels.tube_roi_align(features, tubes, pool_size=7, channels_last=channels_last)
    np.testing.assert_allclose(found[:, :1], 1, rtol=1e-6)
    assert not found[:, 1:].any()
    assert not roi_align.reference(features, tubes, pool_size=7)[:, 1:].any()
    with torch.no_grad():
        mine = tube_roi_align(torch.from_numpy(features), torch.from_numpy(tubes), pool_size=7)
    assert not mine[:, 1:].any()


@pytest.mark.parametrize("far", [1e6, 1e12, 3e38])
def test_boxes_far_larger_than_the_map_end(far):
    """As many points as the box asks for are never visited: only those on the map."""
    tubes = np.array([(-far, -far, far, far), (0, 0, far, far), (far, far, far, far)], np.float32)[None, :, None]
    found = host_kernels.tube_roi_align(np.ones((1, 1, 2, 6, 6), np.float32), tubes, pool_size=7)
    assert np.isfinite(found).all()
    assert found.max() <= 1
    if far <= 1e6:  # beyond, float32 cannot tell the points apart
        expected = roi_align.reference(np.ones((1, 1, 2, 6, 6)), tubes, pool_size=7)
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(("batch", "tubes", "frames"), [(1, 1, 1), (2, 1024, 1), (3, 34, 9)])
def test_every_clip_tube_and_frame(batch, tubes, frames):
    state = np.random.RandomState(tubes)
    features = state.standard_normal((batch, frames, 5, 7, 7)).astype(np.float32)
    low = state.uniform(-8, 90, (batch, tubes, frames, 2))
    boxes = np.concatenate((low, low + state.uniform(0, 60, low.shape)), -1).astype(np.float32)
    found = host_kernels.tube_roi_align(features, boxes, pool_size=7)
    np.testing.assert_allclose(found, roi_align.reference(features, boxes, pool_size=7), atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool_size": 9}, "step::TubeRoIAlign: pool_size is 9; it can be 1 to 8"),
        ({"pool_size": 0}, "pool_size is 0"),
        ({"max_cells": 129}, "the features are 129 cells high or wide; 1 to 128 are supported"),
        ({"tactic": 0}, "there is no tactic 0"),
    ],
)
def test_sizes_beyond_the_kernel(changes, message):
    sizes = {"half": True, "channels_last": True, "pitch": 8, "max_cells": 25, "pool_size": 7, "tactic": 1, **changes}
    with pytest.raises(PluginError, match=message):
        roi_align.kernel(**sizes)


def test_loads_are_as_wide_as_alignment_allows():
    def vector(half, pitch):
        kernel = roi_align.kernel(half=half, channels_last=True, pitch=pitch, max_cells=25, pool_size=7, tactic=1)
        return int(kernel.defines["VECTOR"])

    assert [vector(True, pitch) for pitch in (832, 20, 6, 7)] == [8, 4, 2, 1]
    assert [vector(False, pitch) for pitch in (832, 20, 6, 7)] == [4, 4, 2, 1]


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("frames", [3, 9])
@pytest.mark.parametrize("batch", [1, 8])
def test_traffic_is_near_the_least(half, frames, batch):
    traffic = roi_align.traffic_bytes(
        batch=batch, tubes=34, frames=frames, channels=832, height=25, width=25, pool_size=7, half=half
    )
    assert traffic["least"] <= traffic["kernel"] <= 1.5 * traffic["least"]
    assert traffic["function body"] > 5 * traffic["kernel"]


def test_the_docstrings_table():
    traffic = roi_align.traffic_bytes(
        batch=1, tubes=34, frames=9, channels=832, height=25, width=25, pool_size=7, half=True
    )
    for name, count in traffic.items():
        times = [f"{count / speed / 1e3:.0f}" for speed in (600, 300, 1008, 3350)]
        row = next(line for line in roi_align.__doc__.splitlines() if line.strip().startswith(name))
        assert row.split()[-9:] == [f"{count / 1e6:.1f}", "MB", *(word for time in times for word in (time, "us"))][-9:]


def _golden_inputs(golden_ops):
    """The golden RoIs, each as a clip of one frame with one tube."""
    rois = golden_ops["rois"]
    features = golden_ops["roi_feat"][rois[:, 0].astype(int)][:, None]
    return np.ascontiguousarray(features), np.ascontiguousarray(rois[:, None, None, 1:])


def _torchvision(features, boxes, pool_size):
    """torchvision's CPU kernel, in the features' type: [B, N, C, T, P, P]."""
    load_torchvision()
    batch, frames, channels, height, width = features.shape
    tubes = boxes.shape[1]
    frame_of = np.arange(batch * frames).reshape(batch, 1, frames, 1).repeat(tubes, 1)
    rois = np.concatenate((frame_of, boxes), -1).reshape(-1, 5)
    maps = torch.from_numpy(features).reshape(batch * frames, channels, height, width)
    pooled = torch.ops.torchvision.roi_align(
        maps, torch.from_numpy(rois).to(maps.dtype), 1 / STRIDE, pool_size, pool_size, 0, False
    )
    shape = (batch, tubes, frames, channels, pool_size, pool_size)
    return pooled.reshape(shape).permute(0, 1, 3, 2, 4, 5).numpy()


def _boxes(state, count, height, width, pool_size):
    """Boxes in quarters of a pixel, which float16 holds too, without points so near the end of the sampled range that
    rounding decides whether they count."""
    span = np.array([width, height]) * STRIDE
    low = state.uniform(-0.5, 1.2, (8 * count, 2)) * span
    size = state.choice([0, 0.05, 0.3, 1, 1.6], (8 * count, 2)) * state.uniform(-0.2, 1, (8 * count, 2)) * span
    boxes = np.clip(np.concatenate((low, low + size), 1), -500, 500)
    boxes = (np.round(boxes * 4) / 4).astype(np.float32)
    fine = ~(_near_the_end(boxes[:, 0::2], width, pool_size) | _near_the_end(boxes[:, 1::2], height, pool_size))
    assert fine.sum() >= count
    return boxes[fine][:count]


def _near_the_end(ends, cells, pool_size):
    low, high = ends.astype(np.float64).T / STRIDE
    bin_size = np.maximum(high - low, 1) / pool_size
    num_points = np.ceil(bin_size)
    points = np.arange(num_points.max())
    offsets = (points + 0.5) * bin_size[:, None] / num_points[:, None]
    positions = low[:, None, None] + np.arange(pool_size)[:, None] * bin_size[:, None, None] + offsets[:, None]
    positions = np.where(points < num_points[:, None, None], positions, 0)
    return (np.minimum(np.abs(positions + 1), np.abs(positions - cells)) < 1e-4).any((1, 2))
