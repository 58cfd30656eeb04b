"""The fused graph is the step loop's graphs, one after the other."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from step_export.graphs.join import join_graphs
from step_runtime.verification.graph_runners.onnxruntime import OnnxRuntimeRunner

from step.bundles.graph_spec import DETECT, FUSED, RESULTS
from step.bundles.manifest import read_bundle
from step.bundles.step_loop import GraphChain, loop_graphs


@pytest.fixture(scope="module")
def manifest(toy_bundle):
    return read_bundle(toy_bundle)


@pytest.fixture(scope="module")
def parts(toy_bundle, manifest):
    return {name: onnx.load(toy_bundle / f"{name}.onnx") for name in manifest.specs if name != FUSED}


@pytest.fixture(scope="module")
def joined(parts, manifest):
    return join_graphs(parts, manifest.specs[FUSED], config=manifest.config, num_steps=manifest.num_steps)


@pytest.fixture(scope="module")
def frames(manifest):
    shape = manifest.specs[FUSED].inputs[0].concrete_shape(2)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _run(model, frames):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"frames": frames}
    )


def test_gives_the_bits_of_the_step_loop(toy_bundle, manifest, joined, frames):
    chain, runner = GraphChain(manifest.config, frames), OnnxRuntimeRunner(toy_bundle, manifest, device="cpu")
    for name in loop_graphs(manifest.num_steps):
        outputs = runner.run(name, chain.inputs(manifest.specs[name]))
        chain.add(outputs)
        if name != DETECT:
            tubes_px = outputs.get("tubes_px")
    runner.close()
    found = dict(zip(RESULTS, _run(joined, frames), strict=True))
    assert found["counts"].min() > 0
    for name, expected in {**outputs, "tubes_px": tubes_px}.items():
        np.testing.assert_array_equal(found[name], expected)


def test_a_fixed_batch(parts, manifest, joined, frames):
    """Anchors are constants of that many clips."""
    spec = manifest.specs[FUSED]
    clips = type(spec.inputs[0])("frames", "uint8", frames.shape)
    fixed = join_graphs(
        parts, type(spec)(FUSED, (clips,), spec.outputs), config=manifest.config, num_steps=manifest.num_steps
    )
    assert "Expand" not in {node.op_type for node in fixed.graph.node if node.name.startswith("anchors_px")}
    # What depends on the anchors alone is computed when the file is loaded, in float32 too: a few roundings, each
    # 6e-8 of a value up to 1 (160 in px), and three steps that hand them on.
    for name, found, expected in zip(RESULTS, _run(fixed, frames), _run(joined, frames), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=160e-6 if name == "tubes_px" else 1e-6)


def test_nothing_unread_is_left(joined):
    read = {name for node in joined.graph.node for name in node.input} | {info.name for info in joined.graph.output}
    assert all(not read.isdisjoint(node.output) for node in joined.graph.node)
    assert {tensor.name for tensor in joined.graph.initializer} <= read
    assert len({node.name for node in joined.graph.node}) == len(joined.graph.node)


def test_weights_are_called_as_in_the_checkpoint(parts, joined):
    weights = {
        name: {tensor.name: tensor for tensor in graph.graph.initializer if tensor.name.startswith("detector.")}
        for name, graph in {**parts, FUSED: joined}.items()
    }
    of_parts = {name: tensor for part in parts for name, tensor in weights[part].items()}
    assert all(of_parts[name] == tensor for name, tensor in weights[FUSED].items())
    left_out = {name.split(".")[3] for name in of_parts.keys() - weights[FUSED].keys()}
    assert left_out == {"global_cls", "neighbor_reg1"}  # an earlier step's scores, the last's growth


def test_weights_of_one_name_are_one(parts, manifest):
    """Two parts that disagree on a weight are no parts of one model."""
    step2 = onnx.ModelProto()
    step2.CopyFrom(parts["step2"])
    name = next(tensor.name for tensor in parts["backbone"].graph.initializer if "." in tensor.name)
    step2.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), name))
    step2.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]))
    with pytest.raises(AssertionError, match="it differs"):
        join_graphs(
            {**parts, "step2": step2}, manifest.specs[FUSED], config=manifest.config, num_steps=manifest.num_steps
        )
