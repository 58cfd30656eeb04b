"""`step-verify`: two backends graph by graph."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from helpers import ONE_STEP, TINY, assert_one_error, run_command
from step_runtime.clips.sample_clips import sample_clips
from step_runtime.verification.cli import main as step_verify
from step_runtime.verification.graph_runners.open import open_runner

from step import StepError
from step.bundles.graph_edits import make_float, round_halves
from step.bundles.manifest import Thresholds, read_bundle
from step.parity.check import ParityCheck

LOOP = ["backbone", "step1", "step2", "step3", "detect"]


def test_the_packaged_model(tmp_path, monkeypatch, capsys):
    """As bundle and as checkpoint, also where a folder has its name; it has the fused graph alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").mkdir()
    code, printed, error = run_command(step_verify, capsys, "toy", "--checkpoint", "toy", "--max-clips", "1")
    assert code == 0, printed + error
    assert "fused" in printed


def test_every_graph_against_torch_on_real_clips(tiny_bundle, tiny_checkpoint, make_video, tmp_path, capsys):
    report = tmp_path / "out" / "report.json"
    words = ["--checkpoint", tiny_checkpoint, "--clips", make_video("one.mp4"), "--max-clips", "1", "--json", report]
    code, printed, error = run_command(step_verify, capsys, tiny_bundle, *words)
    assert code == 0, printed + error
    content = json.loads(report.read_text())
    assert content["backends"] == ["torch", "onnxruntime"]
    rows = content["rows"]
    assert {row["clip"] for row in rows} == {"one at 1.00 s"}
    assert list(dict.fromkeys(row["graph"] for row in rows)) == [
        "fused",
        *[label for name in LOOP for label in ((name,) if name == "backbone" else (name, f"{name} chained"))],
    ]
    step2 = [row["tensor"] for row in rows if row["graph"] == "step2"]
    assert step2 == ["class_scores", "boxes_px", "first_px", "last_px", "tubes_px", "center_px", "next_tubes_px"]
    assert {row["tolerance"] for row in rows if row["tensor"].endswith("_px")} == {0.05}
    assert all(row["passed"] for row in rows)
    assert max(row["max_error"] for row in rows) > 0
    lines = printed.splitlines()
    assert sum("detections matched" in line for line in lines) == 3
    assert sum("next_tubes_px" in line for line in lines) == 4


@pytest.mark.parametrize("backends", [None, "onnxruntime-fp16,onnxruntime"])
def test_a_half_bundle_with_a_fixed_batch(backends, half_bundle, make_video, capsys):
    words = ["--clips", make_video(), "--max-clips", "2", *(["--backends", backends] if backends else [])]
    code, printed, error = run_command(step_verify, capsys, half_bundle, *words)
    assert code == 0, printed + error
    reference, candidate = (backends or "onnxruntime-fp32,onnxruntime-fp16").split(",")
    assert f"{candidate} against {reference}, clips: 2" in printed


def test_runners_cut_alike(half_bundle):
    """Every runner gives every graph's outputs under the same names, from inputs of either precision."""
    manifest = read_bundle(half_bundle)
    checkpoint = half_bundle.parent / "model.pth"
    frames = np.random.RandomState(0).randint(0, 256, (2, 12, 48, 48, 3), np.uint8)
    shapes = set()
    for name in ("onnxruntime", "onnxruntime-fp32", "onnxruntime-fp16", "torch"):
        runner = open_runner(name, half_bundle, manifest, checkpoint=checkpoint, device="cpu")
        values = runner.run("backbone", {"frames": frames})
        assert runner.precision == ("fp32" if name in ("onnxruntime-fp32", "torch") else "fp16")
        for dtype in (np.float16, np.float32):
            inputs = {key: value.astype(dtype) for key, value in values.items()}
            inputs["input_tubes_px"] = np.full((2, 34, 3, 4), (0, 0, 30, 40), np.float32)
            outputs = runner.run("step1", inputs)
            assert np.isfinite(outputs["boxes_px"]).all()
        shapes.add(tuple((key, value.shape) for key, value in {**values, **outputs}.items()))
        runner.close()
    assert len(shapes) == 1


def test_extra_outputs(half_bundle):
    manifest = read_bundle(half_bundle)
    frames = np.zeros((2, 12, 48, 48, 3), np.uint8)
    for name in ("onnxruntime", "onnxruntime-fp32"):
        runner = open_runner(name, half_bundle, manifest, checkpoint=None, device="cpu")
        plain = runner.run("backbone", {"frames": frames})
        marked = runner.run("backbone", {"frames": frames}, ["relu", "features"])
        assert set(marked) == {*plain, "relu"}
        with pytest.raises(StepError, match="no tensor 'nothing'"):
            runner.run("backbone", {"frames": frames}, ["nothing"])


def test_no_half_is_left(half_bundle):
    model = onnx.load(half_bundle / "fused.onnx")
    make_float(model)
    onnx.checker.check_model(model)
    half = onnx.TensorProto.FLOAT16
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    kinds = {info.type.tensor_type.elem_type for info in (*inferred.graph.value_info, *inferred.graph.output)}
    assert half not in kinds
    assert half not in {tensor.data_type for tensor in model.graph.initializer}


def test_rounding_is_that_of_half(half_bundle):
    """Every result of a node that was half is one of half's numbers, and what was float32 is not."""
    model = onnx.load(half_bundle / "backbone.onnx")
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    computed = [name for node in model.graph.node for name in node.output if name in kinds]
    halves = [name for name in computed if kinds[name] == onnx.TensorProto.FLOAT16]
    floats = [name for name in computed if kinds[name] == onnx.TensorProto.FLOAT]
    round_halves(model)
    make_float(model)
    onnx.checker.check_model(model)
    runner = open_runner("onnxruntime-fp16", half_bundle, read_bundle(half_bundle), checkpoint=None, device="cpu")
    frames = np.random.RandomState(0).randint(0, 256, (2, 12, 48, 48, 3), np.uint8)
    values = runner.run("backbone", {"frames": frames}, [*halves, floats[-1]])
    for name in halves:
        assert np.array_equal(values[name], values[name].astype(np.float16).astype(np.float32)), name
    assert not np.array_equal(values[floats[-1]], values[floats[-1]].astype(np.float16))


def test_clips_are_spread(make_video, tmp_path):
    make_video("a.mp4", frames=100)
    make_video("b.mp4", frames=50)
    clips = list(sample_clips(tmp_path, TINY, max_clips=3, batch=2))
    assert [name for name, _ in clips] == ["a at 1.00 s", "a at 3.00 s", "b at 1.00 s"]
    assert {frames.shape for _, frames in clips} == {(2, 36, 64, 64, 3)}
    assert np.array_equal(clips[0][1][0], clips[0][1][1])
    assert [name for name, _ in sample_clips(tmp_path, ONE_STEP, max_clips=1, batch=1)] == ["a at 2.00 s"]


def test_a_video_without_a_clip(make_video):
    with pytest.raises(StepError, match="too short to take a clip from"):
        list(sample_clips(make_video(frames=1), TINY, max_clips=1, batch=1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(value):
    thresholds = Thresholds(score_threshold=0.01, nms_iou=0.4, max_detections=2)
    check = ParityCheck(precision="fp16", clip="clip", thresholds=thresholds)
    bad, good = np.array([[value, 1.0]], np.float32), np.array([[0.5, 1.0]], np.float32)
    for found, expected in ((bad, good), (good, bad), (bad, bad)):
        for compare in (check.features, check.scores, check.boxes):
            row = compare("graph", "tensor", found, expected)
            assert (row.passed, row.max_error) == (False, np.inf)
    rows = {"labels": np.ones((1, 2), np.int64), "tube_indices": np.array([[0, 1]]), "scores": good}
    fine = rows | {"boxes": np.array([[[0, 0, 0.4, 1], [0.6, 0, 1, 1]]], np.float32)}
    assert check.detections("detect", fine, fine).passed
    assert not check.detections("detect", fine | {"boxes": np.full_like(fine["boxes"], value)}, fine).passed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backends", "onnxruntime,tenserflow"], "no backend 'tenserflow'; there are onnxruntime, "),
        (["--backends", "onnxruntime"], "--backends is 'onnxruntime'; give two different ones"),
        (["--backends", "torch,torch"], "give two different ones"),
        (["--backends", "torch,onnxruntime"], "give --checkpoint model.pth"),
        (["--backends", "onnxruntime-fp32,onnxruntime"], "onnxruntime-fp32 is for fp16 bundles"),
        (["--backends", "onnxruntime,onnxruntime:tpu"], "'tpu'; give cuda or cuda:N"),
        ([], "an fp32 bundle needs a reference: --checkpoint model.pth"),
        (["--max-clips", "0"], "--max-clips is 0"),
        (["--checkpoint", "none.pth"], "none.pth: no such file"),
    ],
)
def test_bad_input(arguments, said, tiny_bundle, capsys):
    assert_one_error(run_command(step_verify, capsys, tiny_bundle, *arguments), said)


def test_another_models_checkpoint(half_bundle, tiny_checkpoint, capsys):
    done = run_command(step_verify, capsys, half_bundle, "--checkpoint", tiny_checkpoint)
    assert_one_error(done, "tiny.pth: not what the bundle was exported from \\(model.pth, sha256 ")


def test_clips_that_are_not_there(half_bundle, tmp_path, capsys):
    for location, said in ((tmp_path, "neither videos"), (tmp_path / "none", "no such file or folder")):
        assert_one_error(run_command(step_verify, capsys, half_bundle, "--clips", location), said)


def test_a_bundle_that_is_not_there(half_bundle, tmp_path, capsys):
    assert_one_error(run_command(step_verify, capsys, tmp_path), "not a bundle")
    shutil.copytree(half_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "step1.onnx").write_bytes(b"")
    assert_one_error(run_command(step_verify, capsys, tmp_path / "bundle"), "changed since it was exported")


def test_a_report_that_cannot_be_written(half_bundle, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = [half_bundle, "--max-clips", "1", "--json", tmp_path / "file" / "report.json"]
    assert_one_error(run_command(step_verify, capsys, *words), "cannot write .*: a file is in the way")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["--backends", "torch,onnxruntime"], "torch"),
        (["--backends", "onnxruntime-fp32,onnxruntime"], "onnx"),
        (["--bisect", "--backends", "onnxruntime,onnxruntime:cuda"], "onnx"),
    ],
)
def test_missing_packages_are_told(arguments, missing, half_bundle):
    code = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript"):
    sys.modules[name] = None
from step_runtime.verification.cli import main
main(sys.argv[1:])
"""
    words = [sys.executable, "-c", code, str(half_bundle), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert_one_error(
        (done.returncode, done.stdout, done.stderr), f"needs {missing}; pip install 'step-trt\\[export\\]'"
    )
