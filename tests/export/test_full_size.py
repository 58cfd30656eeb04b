"""The full-size model with the golden weights: parity of the exported graphs, and TensorRT-RTX builds of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import pytest
import torch

from step import load_checkpoint
from step.bundle import read_bundle

_BUILD = Path(__file__).with_name("build_with_rtx.py")


@pytest.fixture(scope="module")
def expected(golden_checkpoint, golden_frames):
    return load_checkpoint(golden_checkpoint).detect(torch.from_numpy(golden_frames))


def _fused(bundle: Path, frames: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(bundle / "fused.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"frames": frames}), strict=True))


def _rows(labels: np.ndarray, tubes: np.ndarray) -> set[tuple[int, int]]:
    return set(zip(labels.tolist(), tubes.tolist(), strict=True))


def test_fp32_detections_are_the_same_300(golden_bundles, golden_frames, expected, golden_predict):
    found = _fused(golden_bundles["fp32"], golden_frames)
    assert found["counts"].tolist() == [300]
    assert np.abs(found["scores"] - expected.scores.numpy()).max() <= 1e-4
    assert np.abs(found["boxes"] - expected.boxes.numpy()).max() * 400 <= 0.05
    assert np.abs(found["tubes_px"] - expected.tubes_px.numpy()).max() <= 0.05
    assert _rows(found["labels"][0], found["tube_indices"][0]) == _rows(
        expected.labels[0].numpy(), expected.tube_indices[0].numpy()
    )
    assert np.abs(found["scores"][0] - golden_predict["detections_clip0_step3"][:, 0]).max() <= 1e-4


def test_fp16_detections(golden_bundles, golden_frames, expected):
    """The gate of step_export.verify, on frames that it did not see."""
    found = _fused(golden_bundles["fp16"], golden_frames)
    assert np.abs(found["scores"] - expected.scores.numpy()).max() <= 5e-3
    assert np.abs(found["tubes_px"] - expected.tubes_px.numpy()).max() <= 1.0
    wanted = _rows(expected.labels[0].numpy(), expected.tube_indices[0].numpy())
    assert len(wanted & _rows(found["labels"][0], found["tube_indices"][0])) >= 0.95 * len(wanted)


def test_half_is_where_it_should_be(golden_bundles):
    model = onnx.load(golden_bundles["fp16"] / "fused.onnx")
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) >= 4]
    assert weights
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model))
    types = {info.name: info.type.tensor_type.elem_type for info in inferred.graph.value_info}
    for node in inferred.graph.node:
        if node.op_type in ("Sigmoid", "Exp", "TopK", "GreaterOrEqual"):
            assert types[node.input[0]] == onnx.TensorProto.FLOAT, node.op_type
        if node.op_type == "Conv":
            assert types[node.output[0]] == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_parity_report(precision, golden_bundles):
    report = read_bundle(golden_bundles[precision]).parity
    alone = {"step1", "step2", "step3", "detect"}
    assert {row.graph for row in report} == {"fused", "backbone", *alone, *(f"{name} chained" for name in alone)}
    assert {row.clip for row in report} == {"noise", "moving shapes"}
    assert all(row.passed for row in report)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_every_graph(precision, golden_bundles):
    """In a process of its own: the library can abort, and it holds on to memory."""
    pytest.importorskip("tensorrt_rtx")
    bundle = golden_bundles[precision]
    files = [str(bundle / record.file) for record in read_bundle(bundle).graphs.values()]
    done = subprocess.run([sys.executable, str(_BUILD), *files], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("built ") == len(files)
