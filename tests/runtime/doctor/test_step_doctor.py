"""step-doctor: what it finds on a machine without a GPU, and on one that has a fake one."""

import shutil

import onnx
import pytest
from click.testing import CliRunner
from fake_gpu import GPU, FakeCuda, FakeTensorRT, add_fake_engines
from onnx import TensorProto, helper
from step_runtime.backends import engine_checks, tensorrt
from step_runtime.doctor import findings as doctor
from step_runtime.doctor.cli import main


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr("step_runtime.backends.gpus.cuda_driver_is_present", lambda: False)
    monkeypatch.setattr("step_runtime.backends.onnxruntime.cuda_driver_is_present", lambda: False)


@pytest.fixture
def with_fake_gpu(monkeypatch):
    cuda = FakeCuda()
    for module in (doctor, engine_checks, tensorrt):
        monkeypatch.setattr(module, "find_gpu", lambda _device: GPU)
        monkeypatch.setattr(module, "load_library", lambda _library: FakeTensorRT(cuda))
    monkeypatch.setattr(doctor, "list_gpus", lambda: [GPU])
    monkeypatch.setattr(tensorrt, "CudaRuntime", lambda _index: cuda)
    return cuda


def _lines(bundle=None, video=None):
    return {(finding.section, finding.name): finding for finding in doctor.examine(bundle, video)}


def test_the_identity_model_is_one():
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    assert onnx.load_from_string(doctor._IDENTITY_MODEL) == model


def test_tensorrts_plugins(with_fake_gpu, monkeypatch):
    assert _lines()["libraries", "plugins"].text == "tensorrt 11.4.0.106 has no plugins compiled ahead of time; " + (
        "install 10.15 or later"
    )
    monkeypatch.setattr(doctor, "find_problem", lambda _: None)
    assert _lines()["libraries", "plugins"].status == "ok"


def test_a_machine_without_a_gpu(without_gpu, tiny_bundle, make_video):
    found = _lines(tiny_bundle, str(make_video()))
    assert found["machine", "GPU"].status == "absent"
    assert "no NVIDIA driver" in found["machine", "GPU"].text
    assert "providers that load: CPUExecutionProvider" in found["libraries", "onnxruntime"].text
    assert found["libraries", "NVRTC"].text == "of CUDA 13.0; compiles the operators' kernels"
    assert found["bundle", "integrity"].status == "ok"
    assert "3 steps, 60 classes, clips of 36 frames at 12 fps, 64 px" in found["bundle", "model"].text
    for name in ("tensorrt", "tensorrt-rtx", "onnxruntime on CUDA"):
        assert "no NVIDIA driver" in found["backend", name].text
    assert found["backend", "auto"].text == "takes onnxruntime on CPUExecutionProvider, fused loop"
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
    assert found["backend", "auto"].text == "takes tensorrt on Fake GPU (cuda:0, sm89), fused loop"
    assert with_fake_gpu.leaks == 0


def test_auto_says_why_it_passed_engines_over(with_fake_gpu, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", version="10.8.0.43")
    add_fake_engines(tmp_path / "b", "tensorrt-rtx")
    found = _lines(tmp_path / "b")
    assert "built with version 10.8.0.43, this machine has 11.4.0.106" in found["backend", "tensorrt"].text
    assert "takes tensorrt-rtx on Fake GPU" in found["backend", "auto"].text


def test_damaged_engines(without_gpu, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b")
    (tmp_path / "b/engines/tensorrt-00000000/fused.engine").write_text("short")
    finding = _lines(tmp_path / "b")["bundle", "tensorrt engines"]
    assert finding.status == "absent"
    assert "they are damaged" in finding.text
    assert finding.text.endswith(f"build them again: step-build {tmp_path / 'b'} --engine tensorrt")


def test_the_command(without_gpu, tiny_bundle, make_video, tmp_path):
    done = CliRunner().invoke(main, [str(tiny_bundle), str(make_video())])
    assert done.exit_code == 0
    assert "takes onnxruntime" in " ".join(done.stdout.split())
    assert CliRunner().invoke(main, []).exit_code == 0


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
