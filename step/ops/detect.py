"""From a step's scores and boxes to a padded list of detections.

Shape legend: B clips, N tubes, K classes, M detections kept a clip.
Source: SPEC.md, "Detections of a step".
"""

from typing import NamedTuple

import torch
from torch import Tensor

from step.ops.class_nms import class_nms


class TopDetections(NamedTuple):
    """Holds the rows of `step.detections.Detections` that do not depend on time."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    tube_indices: Tensor
    counts: Tensor


def top_detections(
    scores: Tensor,
    boxes_px: Tensor,
    class_ids: Tensor,
    *,
    image_size_px: int,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
) -> TopDetections:
    """Thresholds, suppresses class by class and keeps the best over all classes.

    Args:
        scores: [B, N, K] float32.
        boxes_px: [B, N, 4] float32, already valid (see `make_boxes_valid`).
        class_ids: [K] int64 id of each score column.
        image_size_px: what a coordinate of 1 means.
        score_threshold: scores have to be above it; at least 0.
        nms_iou: IoU at which a lower-scored box of the same class is dropped.
        max_detections: rows to keep; M is this or N K, whichever is less.
    """
    kept = class_nms(boxes_px, scores, score_threshold=score_threshold, iou_threshold=nms_iou)
    num_classes = kept.shape[2]
    rows = min(max_detections, kept.shape[1] * num_classes)
    top_scores, flat_index = kept.flatten(1).topk(rows, dim=1)
    real = top_scores > 0
    tube_indices = flat_index // num_classes
    labels = class_ids[flat_index % num_classes]
    boxes = boxes_px.gather(1, tube_indices[..., None].expand(-1, -1, 4)) / image_size_px
    return TopDetections(
        boxes=torch.where(real[..., None], boxes, 0),
        scores=top_scores,
        labels=torch.where(real, labels, 0),
        tube_indices=torch.where(real, tube_indices, -1),
        counts=real.sum(dim=1),
    )
