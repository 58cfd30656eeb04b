"""The two kernels as PyTorch operators: on a GPU the very PTX that a TensorRT engine holds, on a CPU the reference.

Inference only; `step.ops` has the differentiable forms.

Shape legend: B clips, N tubes or boxes, T feature frames, C channels, H x W feature cells, P bins a side, K classes.

Source: https://docs.pytorch.org/docs/stable/library.html
"""

import ctypes

import numpy as np
import torch
from torch import Tensor

from step_plugins import class_nms as nms
from step_plugins import roi_align
from step_plugins.kernel import Kernel, ceil_div, require
from step_plugins.launch import Argument, launch

_FLOATS = (torch.float32, torch.float16)
_TACTIC = 1  # PyTorch times nothing: the tile that TensorRT is offered first


@torch.library.custom_op("step_plugins::tube_roi_align", mutates_args=(), device_types="cpu")
def tube_roi_align(features: Tensor, tubes_px: Tensor, pool_size: int) -> Tensor:
    """Aligns the RoIs of tubes.

    Args:
        features: [B, T, C, H, W] float32 or float16. On a GPU, features whose channels lie last are not copied.
        tubes_px: [B, N, T, 4] float32 x1, y1, x2, y2 in input pixels.
        pool_size: P, 1 to 8.

    Returns:
        [B, N, C, T, P, P] of the features' dtype.

    Raises:
        PluginError: another dtype or shape, or more than the kernel is made for.
    """
    _check_roi_align(features, tubes_px)
    roi_align.check_limits(pool_size=pool_size, max_cells=max(features.shape[-2:]))
    pooled = roi_align.reference(features.numpy(), tubes_px.numpy(), pool_size=pool_size, dtype=np.float32)
    return torch.from_numpy(pooled).to(features.dtype)


@tube_roi_align.register_kernel("cuda")
def tube_roi_align_cuda(features: Tensor, tubes_px: Tensor, pool_size: int) -> Tensor:
    """See `tube_roi_align`."""
    return launch_roi_align(features, tubes_px, pool_size, tactic=_TACTIC)


def launch_roi_align(
    features: Tensor, tubes_px: Tensor, pool_size: int, *, tactic: int, channels_last: bool = True
) -> Tensor:
    """Runs `tube_roi_align` on a GPU by one of the tactics that TensorRT chooses from.

    Args:
        features, tubes_px, pool_size: see `tube_roi_align`.
        tactic: one of `step_plugins.roi_align.TACTICS`.
        channels_last: which layout the kernel reads; features that lie otherwise are copied.
    """
    _check_roi_align(features, tubes_px)
    batch, frames, channels, height, width = features.shape
    tubes = tubes_px.shape[1]
    kernel = roi_align.kernel(
        half=features.dtype == torch.float16,
        channels_last=channels_last,
        pitch=channels,
        max_cells=max(height, width),
        pool_size=pool_size,
        tactic=tactic,
    )
    grid = roi_align.grid(batch=batch, tubes=tubes, frames=frames, channels=channels, tactic=tactic, ceil_div=ceil_div)
    sizes = roi_align.arguments(
        tubes=tubes, frames=frames, channels=channels, height=height, width=width, pitch=channels
    )
    laid_out = _aligned(features.permute(0, 1, 3, 4, 2) if channels_last else features)
    pooled = features.new_empty(batch, tubes, channels, frames, pool_size, pool_size)
    _launch(kernel, grid, (laid_out, tubes_px.contiguous()), sizes, pooled)
    return pooled


@tube_roi_align.register_fake
def _(features: Tensor, tubes_px: Tensor, pool_size: int) -> Tensor:
    batch, frames, channels = features.shape[:3]
    return features.new_empty(batch, tubes_px.shape[1], channels, frames, pool_size, pool_size)


@torch.library.custom_op("step_plugins::class_nms", mutates_args=(), device_types="cpu")
def class_nms(boxes_xyxy: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float) -> Tensor:
    """Runs class-wise greedy NMS.

    Args:
        boxes_xyxy: [B, N, 4] float32, px; N up to 1024.
        scores: [B, N, K] float32.
        score_threshold: only scores above it take part; at least 0.
        iou_threshold: IoU ("+1" sides) with a kept, higher-scored box at which a box is suppressed.

    Returns:
        [B, N, K] the score where the box is kept, else 0.

    Raises:
        PluginError: another dtype or shape, or more than the kernel is made for.
    """
    _check_nms(boxes_xyxy, scores)
    nms.check_limits(boxes=scores.shape[1], score_threshold=score_threshold, iou_threshold=iou_threshold)
    kept = nms.reference(
        boxes_xyxy.numpy(), scores.numpy(), score_threshold=score_threshold, iou_threshold=iou_threshold
    )
    return torch.from_numpy(kept)


@class_nms.register_kernel("cuda")
def class_nms_cuda(boxes_xyxy: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float) -> Tensor:
    """See `class_nms`."""
    _check_nms(boxes_xyxy, scores)
    batch, boxes, classes = scores.shape
    kernel = nms.kernel(max_boxes=boxes, score_threshold=score_threshold, iou_threshold=iou_threshold, tactic=_TACTIC)
    grid, sizes = nms.grid(batch=batch, classes=classes), nms.arguments(boxes=boxes, classes=classes)
    kept = torch.empty(scores.shape, dtype=scores.dtype, device=scores.device)
    _launch(kernel, grid, (_aligned(boxes_xyxy), scores.contiguous()), sizes, kept)
    return kept


@class_nms.register_fake
def _(boxes_xyxy: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float) -> Tensor:
    del boxes_xyxy, score_threshold, iou_threshold
    return scores.new_empty(scores.shape)


def takes_roi_align(features: Tensor, pool_size: int) -> bool:
    """Says whether `tube_roi_align` is made for these features, [B, T, C, H, W]."""
    largest = max(features.shape[-2:])
    return features.dtype in _FLOATS and pool_size <= roi_align.MAX_POOL_SIZE and largest <= roi_align.MAX_CELLS


def takes_class_nms(scores: Tensor) -> bool:
    """Says whether `class_nms` is made for these scores, [B, N, K]."""
    return scores.dtype == torch.float32 and scores.shape[1] <= nms.MAX_BOXES


def _aligned(tensor: Tensor) -> Tensor:
    """Makes a tensor contiguous that begins where 16 bytes can be loaded at once, as a view may not."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _launch(
    kernel: Kernel, grid: tuple[int, int, int], inputs: tuple[Tensor, ...], sizes: tuple[int, ...], out: Tensor
) -> None:
    with torch.cuda.device(out.device):
        arguments: tuple[Argument, ...] = (
            *(ctypes.c_void_p(tensor.data_ptr()) for tensor in inputs),
            *map(ctypes.c_int, sizes),
            ctypes.c_void_p(out.data_ptr()),
        )
        stream = torch.cuda.current_stream()
        launch(kernel, grid, arguments, device=out.device.index, stream=stream.cuda_stream)


def _check_roi_align(features: Tensor, tubes_px: Tensor) -> None:
    name = f"step::{roi_align.NAME}"
    require(features.dtype in _FLOATS, f"{name}: features are {features.dtype}; they must be float32 or float16")
    require(tubes_px.dtype == torch.float32, f"{name}: tubes_px are {tubes_px.dtype}; they must be float32")
    require(features.ndim == 5, f"{name}: features are {list(features.shape)}; they must be [B, T, C, H, W]")
    batch, frames = features.shape[:2]
    fits = tubes_px.ndim == 4 and (tubes_px.shape[0], *tubes_px.shape[2:]) == (batch, frames, 4)
    require(fits, f"{name}: tubes_px are {list(tubes_px.shape)}; they must be [{batch}, N, {frames}, 4]")


def _check_nms(boxes_xyxy: Tensor, scores: Tensor) -> None:
    name = f"step::{nms.NAME}"
    for label, tensor in (("boxes_xyxy", boxes_xyxy), ("scores", scores)):
        require(tensor.dtype == torch.float32, f"{name}: {label} are {tensor.dtype}; they must be float32")
    require(scores.ndim == 3, f"{name}: scores are {list(scores.shape)}; they must be [B, N, K]")
    wanted = [*scores.shape[:2], 4]
    require(list(boxes_xyxy.shape) == wanted, f"{name}: boxes_xyxy are {list(boxes_xyxy.shape)}; they must be {wanted}")
