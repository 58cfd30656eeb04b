"""The engines' own kernels for eager PyTorch on a GPU, in place of the operators' matrix products."""

import torch
from step_plugins import PluginError, class_nms, torch_ops
from step_plugins.launch import load
from torch import Tensor

from step.ops.class_nms import class_nms_op, matrix_nms
from step.ops.roi_align import matrix_roi_align, tube_roi_align_op


def use_kernels(device: str) -> str | None:
    """From now on `step::tube_roi_align` and `step::class_nms` run as kernels on CUDA tensors in this process.

    Gradients still go through the matrix products, as do tensors that the kernels are not made for.

    Args:
        device: "cuda" or "cuda:N", on which a kernel is loaded to see that the driver takes it.

    Returns:
        Why the kernels cannot be used here, so that all stays as it was; None where they are used.
    """
    any_kernel = class_nms.kernel(max_boxes=1, score_threshold=0.5, iou_threshold=0.5, tactic=1)
    try:
        with torch.cuda.device(device):
            load(any_kernel, device=torch.cuda.current_device())
    except PluginError as error:
        return str(error)
    torch.library.register_kernel(tube_roi_align_op, "cuda", roi_align_on_gpu)
    torch.library.register_kernel(class_nms_op, "cuda", class_nms_on_gpu)
    return None


def roi_align_on_gpu(features: Tensor, tubes_px: Tensor, pool_size: int) -> Tensor:
    """Runs the kernel where it is made for the features, else the matrix products; see `tube_roi_align_op`."""
    if torch_ops.takes_roi_align(features, pool_size):
        pooled: Tensor = torch_ops.tube_roi_align_cuda(features, tubes_px, pool_size)
        return pooled
    return matrix_roi_align(features, tubes_px, pool_size)


def class_nms_on_gpu(boxes_xyxy: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float) -> Tensor:
    """Runs the kernel where it is made for the scores, else the matrix products; see `class_nms_op`."""
    if torch_ops.takes_class_nms(scores):
        kept: Tensor = torch_ops.class_nms_cuda(boxes_xyxy, scores, score_threshold, iou_threshold)
        return kept
    return matrix_nms(boxes_xyxy, scores, score_threshold, iou_threshold)
