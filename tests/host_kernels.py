"""The kernels' own sources compiled by the host's compiler: the same indexing and arithmetic, thread after thread."""

import contextlib
import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from step_plugins import class_nms, roi_align
from step_plugins.kernel import Kernel, ceil_div
from step_plugins.nvrtc import SOURCES


@functools.cache
def _library(source: str, defines: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernel.so"
        macros = [f"-D{name}={value}" for name, value in defines]
        flags = ["-x", "c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
        command = ["g++", *flags, "-shared", "-fPIC", *macros, str(SOURCES / source), "-o", str(library)]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library))


def entry_point(kernel: Kernel):
    """A kernel as a function of its grid, its arrays, of which the last is its output, and its sizes."""
    function = c_function(kernel)

    def call(grid: tuple[int, int, int], arrays: tuple[NDArray, ...], ints: tuple[int, ...]) -> None:
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        function(*grid, *pointers[:-1], *map(ctypes.c_int, ints), pointers[-1])

    return call


def c_function(kernel: Kernel):
    """A kernel as a C function: its grid, then its own arguments."""
    return getattr(_library(kernel.source, tuple(sorted(kernel.defines.items()))), kernel.entry)


def tube_roi_align(
    features: NDArray,
    tubes_px: NDArray[np.float32],
    *,
    pool_size: int,
    channels_last: bool = True,
    tactic: int = 1,
    entry_point=entry_point,
) -> NDArray:
    """[B, T, C, H, W] and [B, N, T, 4] -> [B, N, C, T, P, P]; the memory behind the result is checked."""
    batch, frames, channels, height, width = features.shape
    tubes = tubes_px.shape[1]
    half = features.dtype == np.float16
    pitch = 8 * ceil_div(channels, 8) if half and channels_last else channels  # HWC8 pads, HWC does not
    if channels_last:
        laid_out = _aligned((batch, frames, height, width, pitch), features.dtype)
        laid_out[...] = np.nan  # padding is never to count
        laid_out[..., :channels] = features.transpose(0, 1, 3, 4, 2)
    else:
        laid_out = np.ascontiguousarray(features)
    kernel = roi_align.kernel(
        half=half,
        channels_last=channels_last,
        pitch=pitch,
        max_cells=max(height, width),
        pool_size=pool_size,
        tactic=tactic,
    )
    grid = roi_align.grid(batch=batch, tubes=tubes, frames=frames, channels=channels, tactic=tactic, ceil_div=ceil_div)
    ints = roi_align.arguments(tubes=tubes, frames=frames, channels=channels, height=height, width=width, pitch=pitch)
    pooled, check = _guarded((batch, tubes, channels, frames, pool_size, pool_size), features.dtype)
    entry_point(kernel)(grid, (laid_out, np.ascontiguousarray(tubes_px), pooled), ints)
    check()
    return pooled


def class_nms_kept(
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    *,
    score_threshold: float,
    iou_threshold: float,
    tactic: int = 1,
    entry_point=entry_point,
) -> NDArray[np.float32]:
    """[B, N, 4] and [B, N, K] -> [B, N, K]; the memory behind the result is checked."""
    batch, boxes, classes = scores.shape
    kernel = class_nms.kernel(
        max_boxes=boxes, score_threshold=score_threshold, iou_threshold=iou_threshold, tactic=tactic
    )
    aligned = _aligned(boxes_xyxy.shape, np.float32)
    aligned[...] = boxes_xyxy
    kept, check = _guarded(scores.shape, np.float32)
    grid = class_nms.grid(batch=batch, classes=classes)
    ints = class_nms.arguments(boxes=boxes, classes=classes)
    entry_point(kernel)(grid, (aligned, np.ascontiguousarray(scores), kept), ints)
    check()
    return kept


def _aligned(shape: tuple[int, ...], dtype) -> NDArray:
    """As CUDA's memory is, whose allocations begin at multiples of 256 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 256, np.uint8)
    start = -memory.ctypes.data % 256
    return memory[start : start + size].view(dtype).reshape(shape)


def _guarded(shape: tuple[int, ...], dtype):
    """An output full of a NaN that no kernel writes, and a check that all of it was written and nothing around it."""
    count, margin = int(np.prod(shape)), 64
    itemsize = np.dtype(dtype).itemsize
    bits = np.full(count + 2 * margin, -1, f"i{itemsize}")

    def check() -> None:
        assert (bits[:margin] == -1).all()
        assert (bits[count + margin :] == -1).all()
        assert not (bits[margin : margin + count] == -1).any()

    return bits[margin : margin + count].view(dtype).reshape(shape), check


Launches = list[tuple[Kernel, tuple[int, int, int], int]]
"""Kernel, grid and stream of every launch."""


@contextlib.contextmanager
def in_place_of_the_gpu() -> Iterator[Launches]:
    """CPU tensors go the way of CUDA ones; what is launched is the same source, compiled for the host."""
    import torch
    from step_plugins import torch_ops

    launches: Launches = []

    def host_launch(kernel, grid, arguments, *, device, stream) -> None:
        launches.append((kernel, grid, stream))
        c_function(kernel)(*grid, *arguments)

    with (
        mock.patch.object(torch_ops, "launch", host_launch),
        mock.patch.object(torch.cuda, "device", return_value=contextlib.nullcontext()),
        mock.patch.object(torch.cuda, "current_stream", return_value=SimpleNamespace(cuda_stream=77)),
    ):
        yield launches
