"""`step::TubeRoIAlign`: RoI align of tubes; its NumPy reference and the variants of its kernel.

Shape legend: B clips, N tubes, T feature frames, C channels, H x W feature cells, P bins a side.

Layout: the kernel prefers channels-last features ([B, T, H, W, C]; TensorRT's HWC8 for fp16, HWC for fp32):
neighbouring threads then read neighbouring channels, 16 bytes each, and a cell's weight is one number for all of
them. It takes linear features too, and TensorRT times both. What a reformat between the convolution and the kernel
costs is not known: on tensor cores a 3D convolution gives [B, C, T, H, W] in DHWC8, which is not the HWC8 of [B, T,
C, H, W], and a transpose and a slice of the frames stand between them in the graph. TensorRT may join these into one
copy, which either layout then needs. `make gpu-check` times the kernel in both layouts (stage `kernel_times`). The
result is linear: the reshape [B, N, C, T, P, P] -> [B N, C, T, P, P] that follows is then free.

Memory traffic of one call by `traffic_bytes`, of the released network's last step (B 1, N 34, T 9, C 832, 25 x 25
cells, P 7, fp16), and the time that it takes at the memory's full speed: calculated. On an H200 the kernel takes 49 us
with channels last, 118 us with linear features, and the matrix products of the function body 447 us (docs/gpu.md):
there it is not the memory that bounds it.

    bytes                       A10 600 GB/s   L4 300 GB/s   RTX 4090 1008 GB/s   H100 3350 GB/s
    kernel           42.0 MB           70 us        140 us                42 us            13 us
    function body   281.1 MB          469 us        937 us               279 us            84 us
    least            34.3 MB           57 us        114 us                34 us            10 us

Source: SPEC.md, "RoI align"; He et al., "Mask R-CNN", section 3; `torchvision.ops.roi_align(aligned=False)`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from step_plugins.kernel import CeilDiv, Kernel, ceil_div, require

NAME = "TubeRoIAlign"
SOURCE = "tube_roi_align.cu"
ENTRY = "step_tube_roi_align"
FEATURE_STRIDE = 16
"""Input pixels a feature cell; STEP's backbone has no other."""
MAX_CELLS = 128
MAX_POOL_SIZE = 8


@dataclass(frozen=True)
class Tile:
    """Says how a kernel is cut into blocks.

    Attributes:
        channels: of one block.
        threads: of one block.
    """

    channels: int
    threads: int


TACTICS = {1: Tile(64, 128), 2: Tile(32, 128), 3: Tile(128, 256)}
"""What TensorRT chooses among by timing, under its tactic numbers, which start at 1."""


def check_limits(*, pool_size: int, max_cells: int) -> None:
    """Refuses what the kernel is not made for.

    Args:
        pool_size: P.
        max_cells: the larger of H and W.

    Raises:
        PluginError: which value, and what is allowed.
    """
    require(1 <= pool_size <= MAX_POOL_SIZE, f"step::{NAME}: pool_size is {pool_size}; it can be 1 to {MAX_POOL_SIZE}")
    require(
        1 <= max_cells <= MAX_CELLS,
        f"step::{NAME}: the features are {max_cells} cells high or wide; 1 to {MAX_CELLS} are supported",
    )


def kernel(*, half: bool, channels_last: bool, pitch: int, max_cells: int, pool_size: int, tactic: int) -> Kernel:
    """Makes one variant.

    Args:
        half: features and result are fp16, else fp32.
        channels_last: how the features lie.
        pitch: values from one cell to the next, where channels are last: C or more.
        max_cells: at least H and W.
        pool_size: P.
        tactic: one of `TACTICS`.

    Raises:
        PluginError: see `check_limits`.
    """
    check_limits(pool_size=pool_size, max_cells=max_cells)
    require(tactic in TACTICS, f"step::{NAME}: there is no tactic {tactic}; there are {sorted(TACTICS)}")
    tile = TACTICS[tactic]
    return Kernel(
        source=SOURCE,
        entry=ENTRY,
        defines={
            "HALF": str(int(half)),
            "CHANNELS_LAST": str(int(channels_last)),
            "VECTOR": str(_vector(half=half, pitch=pitch) if channels_last else 1),
            "CHANNEL_TILE": str(tile.channels),
            "THREADS": str(tile.threads),
            "POOL_SIZE": str(pool_size),
            "MAX_CELLS": str(32 * ceil_div(max_cells, 32)),
            "FEATURE_STRIDE": str(FEATURE_STRIDE),
        },
        threads=tile.threads,
    )


def _vector(*, half: bool, pitch: int) -> int:
    """Counts the values that one load takes: 16 bytes, or as many as keep every cell's channels aligned."""
    widest = 8 if half else 4
    return next(size for size in (widest, 4, 2, 1) if pitch % size == 0)


def grid(*, batch: Any, tubes: Any, frames: Any, channels: Any, tactic: int, ceil_div: CeilDiv) -> tuple[Any, Any, Any]:
    """Counts blocks along x, y, z; the sizes may be numbers or TensorRT's symbolic ones."""
    return ceil_div(channels, TACTICS[tactic].channels) * tubes, frames, batch


def arguments(*, tubes: Any, frames: Any, channels: Any, height: Any, width: Any, pitch: Any) -> tuple[Any, ...]:
    """Returns the int32 arguments of the kernel, which stand between its inputs and its output."""
    return tubes, frames, channels, height, width, pitch


def reference(
    features: NDArray[Any], tubes_px: NDArray[Any], *, pool_size: int, dtype: Any = np.float64
) -> NDArray[Any]:
    """Runs the operator in NumPy, point by point as it is defined; slow.

    Args:
        features: [B, T, C, H, W].
        tubes_px: [B, N, T, 4] x1, y1, x2, y2 in input pixels.
        pool_size: P.
        dtype: what it computes in.

    Returns:
        [B, N, C, T, P, P] of `dtype`. Zeros where a box has a coordinate that is not finite.
    """
    batch, frames, channels, height, width = features.shape
    num_tubes = tubes_px.shape[1]
    pooled = np.zeros((batch, num_tubes, channels, frames, pool_size, pool_size), dtype)
    for clip, tube, frame in np.ndindex(batch, num_tubes, frames):
        box = tubes_px[clip, tube, frame].astype(dtype)
        if not np.isfinite(box).all():
            continue
        x1, y1, x2, y2 = box / FEATURE_STRIDE
        rows, columns = _axis_weights(y1, y2, height, pool_size), _axis_weights(x1, x2, width, pool_size)
        # [P, H] @ [C, H, W] @ [W, P]
        pooled[clip, tube, :, frame] = rows @ features[clip, frame].astype(dtype) @ columns.T
    return pooled


def _axis_weights(low: Any, high: Any, cells: int, pool_size: int) -> NDArray[Any]:
    """Averages the hats around a bin's sampling points: [P, cells]."""
    bin_size = max(high - low, low.dtype.type(1)) / pool_size
    num_points = np.ceil(bin_size)
    weights = np.zeros((pool_size, cells), low.dtype)
    for index in range(pool_size):
        start = low + index * bin_size
        # Of a RoI far larger than the map, only the points that can lie on it, and a few more.
        first = max(np.floor((-1 - start) * num_points / bin_size - 0.5) - 1, 0)
        last = min(np.ceil((cells - start) * num_points / bin_size - 0.5) + 1, num_points - 1)
        points = np.arange(first, last + 1, dtype=low.dtype) + low.dtype.type(0.5)
        positions = start + points * bin_size / num_points
        positions = positions[(positions >= -1) & (positions <= cells)].clip(0, cells - 1)
        hats = np.maximum(1 - np.abs(positions[:, None] - np.arange(cells, dtype=low.dtype)), 0)
        weights[index] = hats.sum(0) / num_points
    return weights


def traffic_bytes(
    *, batch: int, tubes: int, frames: int, channels: int, height: int, width: int, pool_size: int, half: bool
) -> dict[str, float]:
    """Calculates the bytes between device memory and L2 cache in one call.

    Device memory is written in sectors of 32 bytes. A block writes P * P neighbouring values per channel, wherever
    they begin; sectors that it shares with another block are counted for both, as if the cache never joined them. One
    frame's features (1 MB of the released network's in fp16) are taken to stay in the L2 cache while its tubes are
    pooled, which their order in the grid is made for.

    Returns:
        For "kernel", "function body" (each of its operators reading its inputs and writing its result), "least".
    """
    value = 2 if half else 4
    features = batch * frames * channels * height * width * value
    boxes = batch * tubes * frames * 4 * 4
    pooled = batch * tubes * frames * channels * pool_size**2 * value
    row_products = batch * tubes * frames * pool_size * channels * width * value
    run = pool_size**2 * value
    sectors_a_run = (run - value) / 32 + 1  # the mean over every place where it can begin
    return {
        "kernel": features + boxes + pooled * (sectors_a_run * 32 / run),
        # transposed features, product with the row weights, product with the column weights, transposed result
        "function body": 2 * features + (features + row_products) + (row_products + pooled) + 2 * pooled + boxes,
        "least": features + boxes + pooled,
    }
