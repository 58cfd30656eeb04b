"""`step::ClassNms` as an ONNX function: greedy NMS as a fixed number of mask updates.

The same mathematics, line by line, as `step.ops.class_nms`; no NonMaxSuppression, no NonZero, no loop.
Shape legend: B clips, N boxes, K classes.
"""

import numpy as np
import onnx

from step_export.graphs.ops.function_builder import FunctionBuilder

NAME = "ClassNms"
ATTRIBUTES = {"score_threshold": float, "iou_threshold": float}


def function_body(*, opset: int, num_boxes: int, score_threshold: float, iou_threshold: float) -> onnx.FunctionProto:
    """ClassNms(boxes_xyxy [B, N, 4] float px, scores [B, N, K] float) -> kept_scores [B, N, K], 0 where suppressed.

    Args:
        opset: version of the standard operators.
        num_boxes: N; N - 1 updates make the greedy result exact.
        score_threshold: scores have to be above it; at least 0.
        iou_threshold: IoU ("+1" sides) at which the lower-scored box is suppressed.
    """
    f = FunctionBuilder(opset=opset)
    overlaps = f.op("GreaterOrEqual", _pairwise_iou(f), f.floats(iou_threshold))  # [B, N, N]
    by_class = f.op("Transpose", "scores", perm=[0, 2, 1])  # [B, K, N]
    mine, other = f.op("Unsqueeze", by_class, f.ints([2])), f.op("Unsqueeze", by_class, f.ints([3]))
    lower_index = f.bools(np.triu(np.ones((num_boxes, num_boxes), np.bool_), 1))
    tie_won = f.op("And", f.op("Equal", other, mine), lower_index)
    outranks = f.op("Or", f.op("Greater", other, mine), tie_won)
    both = f.op("And", outranks, f.op("Unsqueeze", overlaps, f.ints([1])))
    suppresses = f.op("Cast", both, to=onnx.TensorProto.FLOAT)  # [B, K, N (by), N (whom)]
    takes_part = f.op("Cast", f.op("Greater", mine, f.floats(score_threshold)), to=onnx.TensorProto.FLOAT)
    keep = takes_part  # [B, K, 1, N]
    for _ in range(num_boxes - 1):
        keep = f.op("Relu", f.op("Sub", takes_part, f.op("MatMul", keep, suppresses)))
    is_kept = f.op("Greater", f.op("Squeeze", keep, f.ints([2])), f.floats(0))
    kept = f.op("Where", is_kept, by_class, f.floats(0))
    f.op("Transpose", kept, perm=[0, 2, 1], output="kept_scores")
    return f.build(NAME, inputs=["boxes_xyxy", "scores"], output="kept_scores", attributes=list(ATTRIBUTES))


def _pairwise_iou(f: FunctionBuilder) -> str:
    """`step.ops.class_nms.pairwise_iou`: [B, N, N]."""
    one, zero = f.floats(1), f.floats(0)
    x1, y1, x2, y2 = (f.op("Gather", "boxes_xyxy", f.ints([i]), axis=-1) for i in range(4))  # [B, N, 1]
    width = f.op("Add", f.op("Sub", x2, x1), one)
    height = f.op("Add", f.op("Sub", y2, y1), one)
    area = f.op("Mul", width, height)

    def row(column: str) -> str:
        return f.op("Transpose", column, perm=[0, 2, 1])  # [B, 1, N]

    low_x, low_y = f.op("Max", x1, row(x1)), f.op("Max", y1, row(y1))
    high_x, high_y = f.op("Min", x2, row(x2)), f.op("Min", y2, row(y2))
    inter_width = f.op("Max", f.op("Add", f.op("Sub", high_x, low_x), one), zero)
    inter_height = f.op("Max", f.op("Add", f.op("Sub", high_y, low_y), one), zero)
    inter = f.op("Mul", inter_width, inter_height)
    union = f.op("Sub", f.op("Add", area, row(area)), inter)
    return f.op("Div", inter, union)
