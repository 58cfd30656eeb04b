"""Class-wise greedy non-maximum suppression with the legacy "+1" areas.

Shape legend: B clips, N boxes, K classes.

Greedy NMS is a fixed point: a box stays exactly when no box that stays outranks and overlaps it. Starting from "all
stay" and applying that rule N - 1 times reaches the greedy result whatever the scores, with no sorting, no loop whose
length depends on data and no host round trip; one application is a matrix product.

Source: SPEC.md, "Detections of a step".
"""

import torch
from torch import Tensor


def class_nms(boxes_xyxy: Tensor, scores: Tensor, *, score_threshold: float, iou_threshold: float) -> Tensor:
    """Zeroes the scores of suppressed boxes, each class on its own.

    Args:
        boxes_xyxy: [B, N, 4] float32, px.
        scores: [B, N, K] float32.
        score_threshold: only scores above it take part; at least 0, so that a zero means "not kept".
        iou_threshold: a box is suppressed where its IoU with a kept, higher-scored box is at least this. Of equal
            scores the lower index wins.

    Returns:
        [B, N, K] the score where the box is kept, else 0.
    """
    kept: Tensor = class_nms_op(boxes_xyxy, scores, score_threshold, iou_threshold)
    return kept


def pairwise_iou(boxes_xyxy: Tensor) -> Tensor:
    """Returns the IoU of every pair, with the legacy "+1" sides: [..., N, 4] px -> [..., N, N]."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    low_x = torch.maximum(x1[..., :, None], x1[..., None, :])
    low_y = torch.maximum(y1[..., :, None], y1[..., None, :])
    high_x = torch.minimum(x2[..., :, None], x2[..., None, :])
    high_y = torch.minimum(y2[..., :, None], y2[..., None, :])
    inter = (high_x - low_x + 1).clamp(min=0) * (high_y - low_y + 1).clamp(min=0)
    return inter / (area[..., :, None] + area[..., None, :] - inter)


def matrix_nms(boxes_xyxy: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float) -> Tensor:
    """Computes `class_nms` in standard operators, on any device."""
    num_boxes = boxes_xyxy.shape[1]
    overlaps = pairwise_iou(boxes_xyxy) >= iou_threshold  # [B, N, N]
    by_class = scores.transpose(1, 2)  # [B, K, N]
    mine, other = by_class[..., None, :], by_class[..., :, None]
    index = torch.arange(num_boxes, device=scores.device)
    outranks = (other > mine) | ((other == mine) & (index[:, None] < index[None, :]))
    suppresses = (outranks & overlaps[:, None]).to(scores.dtype)  # [B, K, N (by), N (whom)]
    takes_part = (by_class > score_threshold).to(scores.dtype)[..., None, :]  # [B, K, 1, N]
    keep = takes_part
    for _ in range(num_boxes - 1):
        keep = (takes_part - keep @ suppresses).clamp(min=0)
    return torch.where(keep.squeeze(-2) > 0, by_class, 0).transpose(1, 2).contiguous()


@torch.library.custom_op("step::class_nms", mutates_args=())
def class_nms_op(boxes_xyxy: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float) -> Tensor:
    """Is the operator behind `class_nms`."""
    return matrix_nms(boxes_xyxy, scores, score_threshold, iou_threshold)


@class_nms_op.register_fake
def _(boxes_xyxy: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float) -> Tensor:
    del boxes_xyxy, score_threshold, iou_threshold
    return torch.empty_like(scores)
