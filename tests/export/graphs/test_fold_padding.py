"""Folding zero padding into max-pools: the same numbers, and only where they are the same."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from step_export.graphs.fold_padding import fold_padding

_AFTER = (0, 0, 0, 0, 0, 0, 0, 0, 1, 1)  # of [B, C, T, H, W]: a row and a column at the end


def _model(
    *,
    size: int = 9,
    activation: str = "Relu",
    rows: tuple[int, ...] = _AFTER,
    fill: float = 0.0,
    outputs: tuple[str, ...] = ("pooled",),
    readers: int = 1,
) -> onnx.ModelProto:
    nodes = [
        helper.make_node(activation, ["x"], ["active"]),
        helper.make_node("Pad", ["active", "rows", "fill"], ["padded"]),
        helper.make_node(
            "MaxPool", ["padded"], ["pooled"], kernel_shape=[1, 3, 3], strides=[1, 2, 2], pads=[0] * 6, ceil_mode=1
        ),
        *(helper.make_node("Identity", ["padded"], [f"read{i}"]) for i in range(1, readers)),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 5) for name in outputs],
        [numpy_helper.from_array(np.array(rows), "rows"), numpy_helper.from_array(np.float32(fill), "fill")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _run(model: onnx.ModelProto) -> np.ndarray:
    size = model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    x = np.random.RandomState(size).standard_normal((2, 3, 4, size, size)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["pooled"], {"x": x})[0]


@pytest.mark.parametrize("size", [8, 9, 13, 25])
def test_the_same_maxima(size):
    model = _model(size=size)
    expected = _run(model)
    assert fold_padding(model) == 1
    onnx.checker.check_model(model)
    assert "Pad" not in [node.op_type for node in model.graph.node]
    assert not model.graph.initializer
    np.testing.assert_array_equal(_run(model), expected)


@pytest.mark.parametrize(
    "differs",
    [
        {"activation": "Tanh"},  # maxima of negative values are not zero
        {"fill": 1.0},
        {"rows": (0, 0, 0, 0, 0, 0, 1, 0, 1, 1)},  # a channel
        {"rows": (0, 0, 0, 0, 0, 0, 0, 0, 2, 2)},  # a last window of padding alone
        {"rows": (0, 0, 0, 0, 0, 0, 0, 0, -1, -1)},  # it crops
        {"outputs": ("pooled", "padded")},
        {"readers": 2, "outputs": ("pooled", "read1")},
    ],
)
def test_left_alone(differs):
    model = _model(**differs)
    before = model.SerializeToString()
    assert fold_padding(model) == 0
    assert model.SerializeToString() == before


def test_an_export_has_no_padding_left(tiny_bundle):
    model = onnx.load(tiny_bundle / "fused.onnx")
    assert "MaxPool" in [node.op_type for node in model.graph.node]
    assert "Pad" not in [node.op_type for node in model.graph.node]
