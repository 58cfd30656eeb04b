"""Which package may import what."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "step": ROOT / "step",
    "step_export": ROOT / "export/step_export",
    "step_runtime": ROOT / "runtime/step_runtime",
    "step_plugins": ROOT / "plugins/step_plugins",
}
ALLOWED = {
    "step": set(),
    "step_export": {"step", "step_plugins"},
    "step_runtime": {"step", "step_plugins"},
    "step_plugins": set(),
}
TORCH_FREE = [
    "step",
    "step.anchors",
    "step.build_process",
    "step.bundle",
    "step.classes",
    "step.cli",
    "step.clips",
    "step.config",
    "step.detections",
    "step.data",
    "step.data.cli",
    "step.data.toy_cache",
    "step.data.video_clip",
    "step.engines",
    "step.evaluation.report",
    "step.evaluation.scoring",
    "step.evaluation.video_map",
    "step.errors",
    "step.files",
    "step.flavours",
    "step.graph_spec",
    "step.parity",
    "step.parity_check",
    "step.verification_clips",
    "step.toy_model",
    "step.training.config",
    "step_runtime",
    "step_runtime.bench_cli",
    "step_runtime.benchmark.peak_worker",
    "step_runtime.benchmark.scaling",
    "step_runtime.cli",
    "step_runtime.doctor_cli",
    "step_runtime.eval_cli",
    "step_runtime.backends.tensorrt",
    "step_export.build_cli",
    "step_export.build_worker",
    "step_runtime.backends.onnxruntime",
    "step_runtime.backends.openvino",
    "step_runtime.graph_runners.onnxruntime",
    "step_runtime.graph_runners.open",
    "step_runtime.verify_cli",
    "step_plugins",
    "step_plugins.tensorrt_plugins",
]


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", FOLDERS)
def test_imports_point_one_way(package):
    files = list(FOLDERS[package].rglob("*.py"))
    assert files
    for path in files:
        others = _imported(path) & set(FOLDERS) - {package}
        assert others <= ALLOWED[package], path


@pytest.mark.parametrize("module", TORCH_FREE)
def test_needs_neither_torch_nor_onnx_nor_tensorrt_nor_matplotlib(module):
    """Imported in a process where those cannot be found."""
    code = f"""
import importlib.abc, sys
ABSENT = {{"torch", "torchvision", "onnx", "onnxscript", "tensorrt", "tensorrt_rtx", "matplotlib"}}
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import {module}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_gpu_check_needs_no_pyav():
    """`make gpu-check` runs on extracted frames where PyAV is not; without being installed, the project says so."""
    code = """
import importlib.metadata, sys
sys.modules["av"] = None
real = importlib.metadata.distribution
def distribution(name):
    if name == "step-trt":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.distribution = distribution
import step_runtime, step_runtime.backends.onnxruntime, step_runtime.backends.tensorrt, step_runtime.cli
import step_runtime.dataset_run, step_runtime.doctor, step_runtime.eval_cli, step_runtime.map_parity
import step.data.cli, step.data.toy, step.training.checkpoint, step.training.config
import step_export.bundle_writer, conftest
assert step.training.checkpoint.versions()["step-trt"] == "(from its folder)"
assert next(step_runtime.doctor.examine(None, None)).text.endswith("step-trt (from its folder)")
assert step_export.bundle_writer.tool_versions()["step-trt"] == "(from its folder)"
"""
    path = f"{ROOT / 'tests'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=os.environ | {"PYTHONPATH": path})


def test_run_needs_neither_torch_nor_onnx(tiny_bundle, make_video, tmp_path):
    """The whole of step-run, not only its import."""
    code = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript", "tensorrt", "tensorrt_rtx"):
    sys.modules[name] = None
from step_runtime.cli import main
main(sys.argv[1:])
"""
    words = [sys.executable, "-c", code, str(make_video()), "--model", str(tiny_bundle), "--out", str(tmp_path / "out")]
    subprocess.run(words, check=True, timeout=120)
    assert (tmp_path / "out" / "detections.jsonl").is_file()


def test_importing_has_no_side_effects():
    """No output, no files, no threads."""
    modules = "threading, step, step_runtime.cli, step_runtime.verify_cli, step_export.cli"
    code = f"import {modules}; assert threading.active_count() == 1"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"", b"")
