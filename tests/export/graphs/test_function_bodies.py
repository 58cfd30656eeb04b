"""The ONNX function bodies against the torch operators they stand for, in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from step_export.graphs.ops import class_nms as nms_function
from step_export.graphs.ops import roi_align as align_function
from step_plugins import class_nms as nms_plugin
from step_plugins import roi_align as align_plugin

from step.ops.roi_align import tube_roi_align

OPSET = 20
_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}


def _run(function: onnx.FunctionProto, attributes: dict[str, object], *inputs: np.ndarray, rank: int) -> np.ndarray:
    names = list(function.input)
    node = helper.make_node(function.name, names, ["out"], domain="step", plugin_namespace="step", **attributes)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info(n, _TYPES[x.dtype], x.shape) for n, x in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info("out", _TYPES[inputs[0].dtype], [None] * rank)],
    )
    model = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("step", 1)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


def _random_tubes(state: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes inside, across and outside a 200 px frame, some inside out or of no size."""
    low = state.uniform(-60, 220, (*shape, 2))
    size = np.where(state.uniform(size=(*shape, 2)) < 0.1, 0, state.uniform(-30, 200, (*shape, 2)))
    return np.concatenate((low, low + size), axis=-1).astype(np.float32)


@pytest.mark.parametrize(("batch", "tubes", "frames"), [(1, 1, 1), (2, 5, 3), (1, 34, 9)])
def test_roi_align(batch, tubes, frames):
    state = np.random.RandomState(batch + tubes)
    channels, size, pool = 6, 13, 7
    features = state.standard_normal((batch, frames, channels, size, size)).astype(np.float32)
    boxes = _random_tubes(state, (batch, tubes, frames))
    function = align_function.function_body(opset=OPSET, channels=channels, feature_size=size, pool_size=pool)
    found = _run(function, {"pool_size": pool}, features, boxes, rank=6)
    exact = align_plugin.reference(features, boxes, pool_size=pool)
    same = tube_roi_align(torch.from_numpy(features), torch.from_numpy(boxes), pool_size=pool).numpy()
    allowed = 2 * np.abs(same - exact).max()
    assert np.abs(found - exact).max() <= max(allowed, 1e-6)


def test_roi_align_of_half_features():
    state = np.random.RandomState(0)
    features = state.uniform(0, 1, (1, 3, 6, 13, 13)).astype(np.float16)
    boxes = _random_tubes(state, (1, 5, 3))
    function = align_function.function_body(opset=OPSET, channels=6, feature_size=13, pool_size=7)
    found = _run(function, {"pool_size": 7}, features, boxes, rank=6)
    exact = align_plugin.reference(features, boxes, pool_size=7)
    same = tube_roi_align(torch.from_numpy(features), torch.from_numpy(boxes), pool_size=7).double().numpy()
    assert found.dtype == np.float16
    assert np.abs(found - exact).max() <= 2 * np.abs(same - exact).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_roi_align_of_boxes_that_are_not_finite(bad, dtype):
    boxes = np.full((1, 6, 1, 4), (8, 8, 60, 60), np.float32)
    boxes[0, :4, 0] = np.where(np.eye(4, dtype=bool), bad, boxes[0, :4, 0])
    boxes[0, 4] = bad
    function = align_function.function_body(opset=OPSET, channels=2, feature_size=6, pool_size=7)
    found = _run(function, {"pool_size": 7}, np.ones((1, 1, 2, 6, 6), dtype), boxes, rank=6)
    assert not found[:, :5].any()
    np.testing.assert_allclose(found[:, 5], 1, rtol=2e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_class_nms(seed):
    state = np.random.RandomState(seed)
    count, classes = 34, 9
    boxes = _random_tubes(state, (2, count))
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 1)
    scores = (state.randint(0, 8, (2, count, classes)) / 10).astype(np.float32)
    thresholds = {"score_threshold": 0.05, "iou_threshold": 0.4}
    function = nms_function.function_body(opset=OPSET, num_boxes=count, **thresholds)
    found = _run(function, thresholds, boxes, scores, rank=3)
    expected = nms_plugin.reference(boxes, scores, **thresholds)
    np.testing.assert_array_equal(found, expected)


def test_class_nms_follows_a_chain_as_deep_as_there_are_boxes():
    count = 20
    left = np.arange(count, dtype=np.float32) * 10
    boxes = np.stack((left, 0 * left, left + 17, 0 * left + 50), axis=1)[None]
    scores = np.linspace(0.9, 0.1, count, dtype=np.float32)[None, :, None]
    thresholds = {"score_threshold": 0.0, "iou_threshold": 0.2}
    function = nms_function.function_body(opset=OPSET, num_boxes=count, **thresholds)
    found = _run(function, thresholds, boxes, scores, rank=3)
    assert np.flatnonzero(found).tolist() == list(range(0, count, 2))


def test_bodies_use_standard_operators_only():
    forbidden = {"NonMaxSuppression", "NonZero", "RoiAlign", "Loop", "If", "Scan"}
    for function in (
        align_function.function_body(opset=OPSET, channels=4, feature_size=5, pool_size=7),
        nms_function.function_body(opset=OPSET, num_boxes=5, score_threshold=0.1, iou_threshold=0.4),
    ):
        assert function.domain == "step"
        assert "plugin_namespace" in function.attribute
        assert {node.domain for node in function.node} == {""}
        assert not forbidden & {node.op_type for node in function.node}
