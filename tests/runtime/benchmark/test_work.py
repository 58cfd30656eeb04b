"""Counts of work: graphs small enough to count by hand, and the whole model beside SPEC.md's layer tables."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from step_export.graphs.ops.roi_align import function_body
from step_runtime.benchmark.roofline.context_cut import cut_context
from step_runtime.benchmark.roofline.stages import load_stages, stage_names
from step_runtime.benchmark.roofline.work import GraphWork, graph_work, model_work, stage_work

from step import StepConfig, StepError
from step.anchors import anchor_boxes
from step.bundles.manifest import read_bundle

OPSET = 20


def _tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _weight(name, *shape, kind=np.float32):
    return numpy_helper.from_array(np.zeros(shape, kind), name)


def _model(nodes, inputs, outputs, weights=(), functions=()):
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("step", 1)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(weights))
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def _conv_and_product(kind=TensorProto.FLOAT, dtype=np.float32):
    """x [B, 4, 6, 6] -> 3x3 convolution of stride 2 in two groups -> [B, 8, 2, 2] -> product with [2, 5]."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], strides=[2, 2], group=2),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MatMul", ["r", "m"], ["y"]),
    ]
    inputs, outputs = [_tensor("x", ["batch", 4, 6, 6], kind)], [_tensor("y", ["batch", 8, 2, 5], kind)]
    return _model(nodes, inputs, outputs, [_weight("w", 8, 2, 3, 3, kind=dtype), _weight("m", 2, 5, kind=dtype)])


@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_and_a_product(batch):
    """Convolution: 8 x 2 x 2 results of 2 x 3 x 3 each. Product: 8 x 2 x 5 results of 2 each."""
    work = model_work(_conv_and_product(), batch=batch)
    conv, product = 32 * 18, 80 * 2
    x, c, y, weights = 144, 32, 80, 144 + 10
    assert work == GraphWork(
        multiply_adds=batch * (conv + product),
        roi_align_multiply_adds=0,
        least_bytes=4 * (batch * (x + y) + weights),
        bytes=4 * (batch * (x + c + c + y) + weights),
    )


def test_half_moves_half_as_much():
    whole, half = model_work(_conv_and_product()), model_work(_conv_and_product(TensorProto.FLOAT16, np.float16))
    assert half.multiply_adds == whole.multiply_adds
    assert 2 * half.least_bytes == whole.least_bytes
    assert 2 * half.bytes == whole.bytes


def test_counting_leaves_the_graph_as_it_is(tmp_path):
    model = _conv_and_product()
    before = model.SerializeToString()
    work = model_work(model, batch=2)
    assert model.SerializeToString() == before
    onnx.save(model, tmp_path / "graph.onnx")
    assert graph_work(tmp_path / "graph.onnx", batch=2) == work


def test_roi_align_is_counted_apart():
    """B 1, N 2, T 3, C 4, 5 x 5 cells, P 2; behind it a product with [2, 6], which is not RoI align's."""
    body = function_body(opset=OPSET, channels=4, feature_size=5, pool_size=2)
    nodes = [
        helper.make_node("TubeRoIAlign", ["features", "tubes_px"], ["pooled"], domain="step", pool_size=2),
        helper.make_node("MatMul", ["pooled", "m"], ["y"]),
    ]
    inputs = [_tensor("features", ["batch", 3, 4, 5, 5]), _tensor("tubes_px", ["batch", 2, 3, 4])]
    outputs = [_tensor("y", ["batch", 2, 4, 3, 2, 6])]
    work = model_work(_model(nodes, inputs, outputs, [_weight("m", 2, 6)], [body]))
    rows = 3 * (2 * 2) * (4 * 5) * 5  # [T, N P, H] @ [T, H, C W]
    columns = 3 * 2 * 2 * 4 * 2 * 5  # [T, N, P, C, W] @ [T, N, 1, W, P]
    assert work.roi_align_multiply_adds == rows + columns
    assert work.multiply_adds == 2 * 4 * 3 * 2 * 6 * 2


def test_a_shape_that_nobody_knows():
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("MatMul", ["m", "f"], ["y"], name="product"))
    model = _model(nodes, [_tensor("x", [4, 4])], [_tensor("y", None)], [_weight("m", 3, 2)])
    with pytest.raises(StepError, match="MatMul 'product': the shape of 'f' is not known before it runs"):
        model_work(model)


def test_what_only_context_needs_is_cut_off():
    """s feeds both, so it is the backbone's; c and context are cut off at s."""
    nodes = [
        helper.make_node("Relu", ["frames"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["features"]),
        helper.make_node("MatMul", ["s", "v"], ["c"]),
        helper.make_node("Relu", ["c"], ["context"]),
    ]
    outputs = [_tensor("features", ["batch", 3, 5]), _tensor("context", ["batch", 3, 7])]
    model = _model(nodes, [_tensor("frames", ["batch", 3, 2])], outputs, [_weight("w", 2, 5), _weight("v", 2, 7)])
    backbone, context = cut_context(model)
    assert [value.name for value in backbone.graph.output] == ["features"]
    assert [node.output[0] for node in backbone.graph.node] == ["s", "features"]
    assert [node.output[0] for node in context.graph.node] == ["c", "context"]
    assert [value.name for value in context.graph.input] == ["s"]
    assert model_work(backbone, batch=2).multiply_adds == 2 * 3 * 5 * 2
    assert model_work(context, batch=2) == GraphWork(
        multiply_adds=2 * 3 * 7 * 2, roi_align_multiply_adds=0, least_bytes=4 * (12 + 14 + 42), bytes=4 * (12 + 14 + 42)
    )


# SPEC.md, "Backbone" and "Context branch": (a, b1, b2, c1, c2, d) of every mixed block.
MIXED_3 = ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64))
MIXED_4 = (
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
)
MIXED_5 = ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128))


def _mixed(config: StepConfig, blocks, taken: int) -> tuple[int, int]:
    """Multiply-adds a cell, and the channels that come out."""
    total = 0
    for block in blocks:
        a, b1, b2, c1, c2, d = (config.channels(full) for full in block)
        total += taken * (a + b1 + c1 + d) + 27 * (b1 * b2 + c1 * c2)
        taken = a + b2 + c2 + d
    return total, taken


def by_hand(config: StepConfig) -> dict[str, int]:
    """Multiply-adds of one clip by SPEC.md's tables; sizes are halved by the stem and the pools."""
    w, frames = config.channels, config.clip_frames
    sizes = [config.image_size_px // 2]
    for _ in range(4):
        sizes.append(-(-sizes[-1] // 2))
    half, quarter = frames // 2, frames // 4
    backbone = half * sizes[0] ** 2 * w(64) * 3 * 343
    backbone += half * sizes[1] ** 2 * (w(64) * w(64) + 27 * w(64) * w(192))
    per_cell, channels = _mixed(config, MIXED_3, w(192))
    backbone += half * sizes[2] ** 2 * per_cell
    per_cell, channels = _mixed(config, MIXED_4, channels)
    backbone += quarter * sizes[3] ** 2 * per_cell
    per_cell, context_channels = _mixed(config, MIXED_5, channels)
    counts = {"backbone": backbone, "context": quarter * sizes[4] ** 2 * per_cell}

    tubes, bins, fc, wide, inner = (
        len(anchor_boxes(config.anchor_mode)),
        config.pool_size**2,
        config.fc_dim,
        w(1024),
        w(256),
    )
    local = (channels + fc) * (wide + inner) + 9 * inner**2 + inner * wide
    local += 2 * (2 * wide * inner + 9 * inner**2) + wide * fc
    for step in range(config.num_steps):
        seen = config.step_frames(step)
        cells = tubes * seen * bins * (per_cell + context_channels * fc + local)
        classes = tubes * seen * (fc * bins + context_channels) * config.num_classes
        boxes = tubes * (seen + 2 * config.chunk_frames) * fc * bins * 4
        counts[f"step{step + 1}"] = cells + classes + boxes
    return counts


def test_the_tables_give_the_specs_totals():
    counts = by_hand(StepConfig())
    billions = {"backbone": 196.0, "context": 7.2, "step1": 48.8, "step2": 48.8, "step3": 146.5}
    assert counts == {name: pytest.approx(1e9 * value, rel=0.01) for name, value in billions.items()}


def test_the_tiny_model_has_what_the_tables_say(tiny_bundle):
    manifest = read_bundle(tiny_bundle)
    config = manifest.config
    counts, work = by_hand(config), stage_work(tiny_bundle, manifest)
    assert list(work) == [*counts, "detect", "fused"]
    for name, count in counts.items():
        assert work[name].multiply_adds == count, name
    tubes, cells, bins = 34, config.feature_size, config.pool_size
    for step in range(3):
        align = tubes * bins * cells * config.feature_channels * (cells + bins)  # rows, then columns
        assert work[f"step{step + 1}"].roi_align_multiply_adds == config.step_frames(step) * align
    # One graph need not compute what only a later call would read: classes of all steps but the last.
    assert 0.99 < work["fused"].multiply_adds / sum(work[name].multiply_adds for name in counts) <= 1
    assert work["fused"].roi_align_multiply_adds == sum(one.roi_align_multiply_adds for one in work.values()) / 2
    again = stage_work(tiny_bundle, manifest, batch=3)
    assert {name: one.multiply_adds for name, one in again.items()} == {
        name: 3 * one.multiply_adds for name, one in work.items()
    }


def test_the_least_bytes_of_a_step(tiny_bundle):
    """features, tubes and context in, seven outputs back, and every weight once."""
    manifest = read_bundle(tiny_bundle)
    spec = manifest.graphs["step1"].spec("step1")
    values = sum(int(np.prod(tensor.concrete_shape(2))) for tensor in (*spec.inputs, *spec.outputs))
    model = load_stages(tiny_bundle, manifest)["step1"]
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
    assert stage_work(tiny_bundle, manifest, batch=2)["step1"].least_bytes == 4 * values + weights


def test_bundles_that_have_other_graphs(half_bundle, tiny_bundle):
    manifest = read_bundle(half_bundle)
    assert stage_names(manifest) == ["backbone", "context", "step1", "detect"]
    assert set(stage_work(half_bundle, manifest, batch=2)) == {*stage_names(manifest), "fused"}
    with pytest.raises(StepError, match="its graphs take 2 clips a call, not 1; give --batch"):
        stage_work(half_bundle, manifest)
    manifest = read_bundle(tiny_bundle)
    fused = manifest.model_copy(update={"graphs": {"fused": manifest.graphs["fused"]}})
    with pytest.raises(StepError, match="has no step-loop graphs, which the stages are; export it with: --graphs all"):
        stage_work(tiny_bundle, fused)
