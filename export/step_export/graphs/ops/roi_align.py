"""`step::TubeRoIAlign` as an ONNX function: RoI align of tubes is two matrix products.

The same mathematics, line by line, as `step.ops.roi_align`, in standard operators that TensorRT-RTX, ONNX Runtime and
other runtimes have; no RoiAlign.
Shape legend: B clips, N tubes, T feature frames, C channels, H x W feature cells, P bins a side.
"""

import math

import onnx

from step.config import FEATURE_STRIDE
from step_export.graphs.ops.function_builder import FunctionBuilder

NAME = "TubeRoIAlign"
ATTRIBUTES = {"pool_size": int}


def function_body(*, opset: int, channels: int, feature_size: int, pool_size: int) -> onnx.FunctionProto:
    """TubeRoIAlign(features [B, T, C, H, W], tubes_px [B, N, T, 4] float) -> pooled [B, N, C, T, P, P].

    Args:
        opset: version of the standard operators.
        channels: C.
        feature_size: H = W.
        pool_size: P.
    """
    f = FunctionBuilder(opset=opset)
    x_weights, y_weights = (
        _axis_weights(f, low=low, high=low + 2, cells=feature_size, pool_size=pool_size) for low in (0, 1)
    )
    # In this order TensorRT-RTX needs half the scratch memory of columns first, and ONNX Runtime a quarter of the time.
    # [B, T, N P, H] @ [B, T, H, C W] -> [B, T, N, P, C, W]; 0 in a shape keeps that dimension, -1 is N P or N
    rows = f.op("Transpose", y_weights, perm=[0, 2, 1, 3, 4])
    rows = f.op("Reshape", rows, f.ints([0, 0, -1, feature_size]))
    flat = f.op("Transpose", "features", perm=[0, 1, 3, 2, 4])
    flat = f.op("Reshape", flat, f.ints([0, 0, feature_size, channels * feature_size]))
    rows = f.op("MatMul", rows, flat)
    rows = f.op("Reshape", rows, f.ints([0, 0, -1, pool_size, channels, feature_size]))
    # [B, T, N, P, C, W] @ [B, T, N, 1, W, P] -> [B, T, N, P, C, P] -> [B, N, C, T, P, P]
    columns = f.op("Unsqueeze", f.op("Transpose", x_weights, perm=[0, 2, 1, 4, 3]), f.ints([3]))
    pooled = f.op("MatMul", rows, columns)
    f.op("Transpose", pooled, output="pooled", perm=[0, 2, 4, 1, 3, 5])
    return f.build(NAME, inputs=["features", "tubes_px"], output="pooled", attributes=list(ATTRIBUTES))


def _axis_weights(f: FunctionBuilder, *, low: int, high: int, cells: int, pool_size: int) -> str:
    """`step.ops.roi_align.axis_weights`: [B, N, T, P, cells] of the features' type."""
    stride, one = f.floats(FEATURE_STRIDE), f.floats(1)
    last, second_last = f.ints([-1]), f.ints([-2])
    start = f.op("Div", f.op("Gather", "tubes_px", f.ints(low), axis=-1), stride)
    end = f.op("Div", f.op("Gather", "tubes_px", f.ints(high), axis=-1), stride)
    size = f.op("Max", f.op("Sub", end, start), one)
    bin_size = f.op("Unsqueeze", f.op("Div", size, f.floats(pool_size)), last)  # [B, N, T, 1]
    max_points = math.ceil(cells / pool_size)
    num_points = f.op("Min", f.op("Ceil", bin_size), f.floats(max_points))
    bins, points, cell = (f.floats([float(i) for i in range(count)]) for count in (pool_size, max_points, cells))

    bin_start = f.op("Add", f.op("Unsqueeze", start, last), f.op("Mul", bins, bin_size))
    offset = f.op("Div", f.op("Mul", f.op("Add", points, f.floats(0.5)), bin_size), num_points)
    # [B, N, T, P, 1] + [B, N, T, 1, max_points]
    position = f.op("Add", f.op("Unsqueeze", bin_start, last), f.op("Unsqueeze", offset, second_last))
    inside = f.op(
        "And",
        f.op("GreaterOrEqual", position, f.floats(-1)),
        f.op("LessOrEqual", position, f.floats(cells)),
    )
    is_box = f.op("Greater", end, f.floats(-math.inf))
    used = f.op("And", f.op("Less", points, num_points), f.op("Unsqueeze", is_box, last))
    counts = f.op("And", inside, f.op("Unsqueeze", used, second_last))
    share = f.op("Where", counts, f.op("Div", one, f.op("Unsqueeze", num_points, last)), f.floats(0))
    position = f.op("Clip", f.op("Where", counts, position, f.floats(0)), f.floats(0), f.floats(cells - 1))

    # [B, N, T, P, max_points, 1] against [cells], summed over the points
    distance = f.op("Abs", f.op("Sub", f.op("Unsqueeze", position, last), cell))
    hats = f.op("Relu", f.op("Sub", one, distance))
    weights = f.op("ReduceSum", f.op("Mul", hats, f.op("Unsqueeze", share, last)), second_last, keepdims=0)
    return f.op("CastLike", weights, "features")
