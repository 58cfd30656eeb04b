"""Which package may import what."""

import ast
import os
import subprocess
import sys
from importlib.metadata import entry_points
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
MAY_NEED_TORCH_OR_ONNX = (
    "step/bundles/graph_edits.py",
    "step/checkpoints",
    "step/data/ava_dataset.py",
    "step/data/torchvision.py",
    "step/models",
    "step/ops",
    "step/training",
    "export/step_export/bundle_writer.py",
    "export/step_export/graphs",
    "runtime/step_runtime/backends/torch.py",
    "runtime/step_runtime/backends/torch_kernels.py",
    "runtime/step_runtime/verification/bisect.py",
    "runtime/step_runtime/verification/graph_runners/onnxruntime_arithmetic.py",
    "runtime/step_runtime/verification/graph_tensors.py",
    "plugins/step_plugins/torch_ops.py",
)
NEEDS_NEITHER_ALL_THE_SAME = (
    "step/checkpoints/toy_model.py",
    "step/training/cli.py",
    "step/training/config.py",
    "step/training/yaml_file.py",
)


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


def _modules(package: str, *, light: bool) -> list[str]:
    """Dotted names of a package's modules, either those that need neither torch nor ONNX, or the others."""
    names = []
    for path in sorted(FOLDERS[package].rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        may_need = any(place == other or place.startswith(f"{other}/") for other in MAY_NEED_TORCH_OR_ONNX)
        is_light = not may_need or path.name == "__init__.py" or place in NEEDS_NEITHER_ALL_THE_SAME
        if is_light == light:
            dotted = ".".join((package, *path.relative_to(FOLDERS[package]).with_suffix("").parts))
            names.append(dotted.removesuffix(".__init__"))
    return names


WITHOUT_THEM = """
import importlib, importlib.abc, sys
ABSENT = {
    "torch", "torchvision", "onnx", "onnxscript", "tensorrt", "tensorrt_rtx", "cuda", "openvino",
    "yaml", "lightning_fabric", "tensorboard", "matplotlib", "jinja2", "pyarrow", "google",
}
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
failed = []
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        failed.append(f"{module}: {error}")
for line in failed:
    print(line)
"""


def _failing(modules: list[str]) -> list[str]:
    """Which modules cannot be imported where nothing but the base install can be found."""
    words = [sys.executable, "-c", WITHOUT_THEM, *modules]
    return subprocess.run(words, check=True, timeout=60, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("package", FOLDERS)
def test_needs_the_base_install_alone(package):
    modules = _modules(package, light=True)
    assert modules
    assert _failing(modules) == []


COMMANDS = [script for script in entry_points(group="console_scripts") if script.name.startswith("step-")]
HELP_OF_ALL = (
    WITHOUT_THEM.partition("failed")[0]
    + """
from importlib.metadata import entry_points
import click
for script in sorted(entry_points(group="console_scripts")):
    if script.name.startswith("step-"):
        command = script.load()
        for words in [[], *([name] for name in getattr(command, "commands", ()))]:
            try:
                command.main([*words, "--help"], standalone_mode=False)
            except SystemExit as ended:
                assert not ended.code, (script.name, words)
"""
)


def test_help_of_every_command_on_a_base_install():
    done = subprocess.run([sys.executable, "-c", HELP_OF_ALL], timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") >= 18


@pytest.mark.parametrize("script", COMMANDS, ids=lambda script: script.name)
def test_modules_of_commands_are_commands(script):
    words = [sys.executable, "-m", script.module, "--version"]
    assert subprocess.run(words, timeout=60, capture_output=True, check=True).stdout.startswith(b"step-trt ")


def test_training_on_a_base_install_says_what_to_install(tmp_path):
    code = WITHOUT_THEM.partition("failed")[0] + "from step.training.cli import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, "detect", "toy_detect.yaml", "-o", str(tmp_path / "run")]
    done = subprocess.run(words, timeout=60, capture_output=True, text=True, check=False)
    said = "error: training needs PyYAML; install it with: pip install 'step-trt[train]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_files_that_may_need_torch_do():
    files = [place for place in MAY_NEED_TORCH_OR_ONNX if place.endswith(".py")]
    names = [name for package in FOLDERS for name in _modules(package, light=False)]
    modules = [name for name in names if any(place.endswith(name.replace(".", "/") + ".py") for place in files)]
    assert len(modules) == len(files)
    assert len(_failing(modules)) == len(files)


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
import step_runtime.doctor.findings, step_runtime.evaluation.cli
import step_runtime.evaluation.dataset_run, step_runtime.evaluation.map_parity
import step.data.cli, step.data.toy.toy, step.training.run_checkpoints, step.training.config
import step_export.bundle_writer, conftest
assert step.training.run_checkpoints.versions()["step-trt"] == "(from its folder)"
assert next(step_runtime.doctor.findings.examine(None, None)).text.endswith("step-trt (from its folder)")
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
    modules = "threading, step, step_runtime.cli, step_runtime.verification.cli, step_export.cli"
    code = f"import {modules}; assert threading.active_count() == 1"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_docstrings_are_sentences():
    """None begins with "Of", as if the name before it were half of the sentence."""
    for folder in (*FOLDERS.values(), ROOT / "benchmarks"):
        for path in folder.rglob("*.py"):
            assert '"""Of ' not in path.read_text(), path
