"""step-doctor: what it finds on a machine without a GPU, and on one that has a fake one."""

import json
import shlex
import shutil
from importlib.metadata import entry_points

import onnx
import pytest
from click.testing import CliRunner
from fake_gpu import GPU, FakeCuda, FakeTensorRT, add_fake_engines
from onnx import TensorProto, helper
from step_runtime.backends import engine_checks, tensorrt
from step_runtime.doctor import backends, bundle, machine
from step_runtime.doctor.cli import main
from step_runtime.doctor.finding import Finding
from step_runtime.doctor.findings import examine
from step_runtime.doctor.next_command import find_next_command

from step.errors import StepError


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr("step_runtime.backends.gpus.cuda_driver_is_present", lambda: False)
    monkeypatch.setattr("step_runtime.backends.onnxruntime.cuda_driver_is_present", lambda: False)


@pytest.fixture
def with_fake_gpu(monkeypatch):
    cuda = FakeCuda()
    for module in (backends, bundle, engine_checks, tensorrt):
        monkeypatch.setattr(module, "find_gpu", lambda _device: GPU)
        monkeypatch.setattr(module, "load_library", lambda _library: FakeTensorRT(cuda))
    monkeypatch.setattr(machine, "load_library", lambda _library: FakeTensorRT(cuda))
    for module in (backends, machine):
        monkeypatch.setattr(module, "list_gpus", lambda: [GPU])
    monkeypatch.setattr(tensorrt, "CudaRuntime", lambda _index: cuda)
    return cuda


def _lines(model=None, video=None):
    return {(finding.section, finding.name): finding for finding in examine(model, video)}


def test_the_identity_model_is_one():
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    assert onnx.load_from_string(backends.IDENTITY_MODEL) == model


def test_tensorrts_plugins(with_fake_gpu, monkeypatch):
    assert _lines()["libraries", "plugins"].text == "tensorrt 11.4.0.106 has no plugins compiled ahead of time; " + (
        "install 10.15 or later"
    )
    monkeypatch.setattr(machine, "find_problem", lambda _: None)
    assert _lines()["libraries", "plugins"].status == "ok"


def test_a_machine_without_a_gpu(without_gpu, tiny_bundle, make_video):
    found = _lines(tiny_bundle, str(make_video()))
    assert found["machine", "GPU"].status == "absent"
    assert "no NVIDIA driver" in found["machine", "GPU"].text
    assert found["libraries", "NVRTC"].text == "of CUDA 13.0; compiles the operators' kernels"
    assert found["bundle", "integrity"].status == "ok"
    assert "3 steps, 60 classes, clips of 36 frames at 12 fps, 64 px" in found["bundle", "model"].text
    for name in ("tensorrt", "tensorrt-rtx", "onnxruntime on CUDA"):
        assert found["backends", name].status == "absent"
    assert "no NVIDIA driver" in found["backends", "onnxruntime on CUDA"].text
    for name in ("onnxruntime on the CPU", "openvino"):
        assert found["backends", name].status == "ok"
        assert found["backends", name].text.endswith("on the CPU; runs this model, fused loop")
    assert found["backends", "torch"].status == "absent"
    assert found["backends", "torch"].text.endswith("on the CPU; takes checkpoints, not bundles")
    assert found["backends", "auto"].status == "ok"
    video = found["video", "video"]
    assert video.status == "ok"
    assert "H.264" in video.text
    assert "96x64" in video.text
    assert "25.00 fps" in video.text


def test_engines_for_this_machine(with_fake_gpu, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b")
    found = _lines(tmp_path / "b")
    assert found["machine", "cuda:0"].text == "Fake GPU, sm89, 17.2 GB"
    assert "batch 1, for sm89" in found["bundle", "tensorrt engines"].text
    assert found["bundle", "tensorrt here"].status == "ok"
    assert found["backends", "auto"].text == "takes tensorrt on Fake GPU (cuda:0, sm89), fused loop"
    assert with_fake_gpu.leaks == 0


def test_auto_says_why_it_passed_engines_over(with_fake_gpu, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", version="10.8.0.43")
    add_fake_engines(tmp_path / "b", "tensorrt-rtx")
    found = _lines(tmp_path / "b")
    assert "built with version 10.8.0.43, this machine has 11.4.0.106" in found["backends", "tensorrt"].text
    assert "takes tensorrt-rtx on Fake GPU" in found["backends", "auto"].text


def test_damaged_engines(without_gpu, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b")
    (tmp_path / "b/engines/tensorrt-00000000/fused.engine").write_text("short")
    finding = _lines(tmp_path / "b")["bundle", "tensorrt engines"]
    assert finding.status == "absent"
    assert "they are damaged" in finding.text
    assert finding.text.endswith(f"build them again: step-build {tmp_path / 'b'} --engine tensorrt")


def test_every_backend_has_a_row(without_gpu):
    names = [name for section, name in _lines() if section == "backends"]
    assert names == [
        "tensorrt",
        "tensorrt-rtx",
        "onnxruntime on CUDA",
        "onnxruntime on the CPU",
        "openvino",
        "torch",
    ]


def test_a_library_that_is_not_there(without_gpu, monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _module: None)
    found = _lines()
    assert found["backends", "torch"].text == "torch is not installed; pip install 'step-trt[export]'"
    assert found["backends", "openvino"].text == "openvino is not installed; pip install 'step-trt[openvino]'"


def test_a_library_that_does_not_load(without_gpu, monkeypatch):
    def fail(module):
        raise OSError(f"lib{module}.so is cut off")

    monkeypatch.setattr(backends.importlib, "import_module", fail)
    text = _lines()["backends", "openvino"].text
    assert text.startswith("openvino is installed but does not load: libopenvino.so is cut off; reinstall it: pip")


def test_a_checkpoint(without_gpu, tiny_checkpoint):
    found = _lines(tiny_checkpoint)
    assert found["model", "checkpoint"].status == "ok"
    assert found["backends", "torch"].text.endswith("on the CPU; runs this model, steps loop")
    assert found["backends", "openvino"].text.endswith("; takes bundles, which step-export makes of checkpoints")
    assert found["backends", "auto"].text.startswith("takes torch on cpu")


def test_toy_is_a_model(without_gpu):
    done = CliRunner().invoke(main, ["toy"])
    assert done.exit_code == 0
    assert "runs this model" in done.stdout
    assert "integrity: ok: toy: every graph" in done.stdout
    assert done.stdout.endswith("next: step-run --demo\n")


def test_the_command(without_gpu, tiny_bundle, make_video, tmp_path):
    video = make_video("a video.mp4")
    done = CliRunner().invoke(main, [str(tiny_bundle), str(video), "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0
    assert "backends: auto: ok: takes " in done.stdout
    assert done.stdout.endswith(f"next: step-run '{video}' --model {tiny_bundle}\n")
    assert done.stderr == ""
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == ["step_trt", "passed", "findings", "next_command"]
    assert found["passed"] is True
    assert found["next_command"] == f"step-run '{video}' --model {tiny_bundle}"
    assert [f"{each['section']}: {each['name']}" for each in found["findings"]] == [
        ": ".join(line.split(": ")[:2]) for line in done.stdout.splitlines()[:-1]
    ]


_HERE = {("backends", "torch"): True, ("libraries", "onnx"): True, ("libraries", "onnxscript"): True}
_RUNS = {("backends", "auto"): True}


@pytest.mark.parametrize(
    ("changes", "model", "video", "expected"),
    [
        ({}, None, None, "step-run --demo"),
        ({}, "missing", None, "step-run --demo"),
        (_RUNS, "{bundle}", None, "step-bench {bundle}"),
        (_RUNS | {("video", "v"): True}, "{bundle}", "v 1.mp4", "step-run 'v 1.mp4' --model {bundle}"),
        (_RUNS | {("video", "v"): False}, "{bundle}", "v.mp4", "step-bench {bundle}"),
        (_RUNS, "toy", None, "step-run --demo"),
        (_RUNS, "{checkpoint}", None, "step-export {checkpoint} -o {stem}-bundle"),
        (_RUNS | {("libraries", "onnx"): False}, "{checkpoint}", None, "pip install 'step-trt[export]'"),
        (_RUNS | {("video", "v"): True}, "{checkpoint}", "v.mp4", "step-run v.mp4 --model {checkpoint}"),
    ],
)
def test_the_next_command(changes, model, video, expected, without_gpu, tiny_bundle, tiny_checkpoint):
    paths = {"bundle": tiny_bundle, "checkpoint": tiny_checkpoint, "stem": tiny_checkpoint.with_suffix("")}
    findings = [
        Finding(*name, "ok" if good else "failed" if name[0] == "video" else "absent", "")
        for name, good in (_HERE | changes).items()
    ]
    command = find_next_command(findings, model and model.format(**paths), video)
    assert command == expected.format(**paths)
    words = shlex.split(command)
    if words[0] != "pip":
        (script,) = entry_points(group="console_scripts", name=words[0])
        script.load().make_context(words[0], words[1:]).close()


def test_engines_are_to_be_built_where_they_would_run(with_fake_gpu, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    assert find_next_command(list(examine(tmp_path / "b", None)), str(tmp_path / "b"), None) == (
        f"step-build {tmp_path / 'b'} --engine tensorrt"
    )
    add_fake_engines(tmp_path / "b")
    add_fake_engines(tmp_path / "b", "tensorrt-rtx")
    assert find_next_command(list(examine(tmp_path / "b", None)), str(tmp_path / "b"), None) == (
        f"step-bench {tmp_path / 'b'}"
    )


def test_where_nothing_runs_the_model(without_gpu, tiny_bundle, monkeypatch):
    def refuse(*_arguments, **_options):
        raise StepError("not today")

    monkeypatch.setattr(backends, "open_backend", refuse)
    found = _lines(tiny_bundle)
    assert found["backends", "auto"] == Finding("backends", "auto", "failed", "nothing here runs this model: not today")


@pytest.mark.parametrize("arguments", [["absent"], ["{bundle}", "absent.mp4"], ["{bundle}", "{broken}"]])
def test_exit_code_1(arguments, without_gpu, tiny_bundle, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    words = [word.format(bundle=tiny_bundle, broken=broken) for word in arguments]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert "FAILED" in done.stdout


def test_a_damaged_bundle(without_gpu, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    (tmp_path / "b/fused.onnx").write_bytes(b"")
    finding = _lines(tmp_path / "b")["bundle", "integrity"]
    assert finding.status == "failed"
    assert "changed since it was exported" in finding.text
