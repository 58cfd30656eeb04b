"""A torchvision that does not fit torch: one line from the command that needs it, nothing from the others."""

import ast
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from step.data.torchvision import pair_that_fits

PACKAGES = (ROOT / "step", ROOT / "export/step_export", ROOT / "runtime/step_runtime", ROOT / "plugins/step_plugins")
REASON = "operator torchvision::nms does not exist"
TRAIN = ("step.training.cli", "detect", "toy_detect.yaml")


def _run(folder: Path | None, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs one of our modules in a process of its own, with a folder before all others on the path."""
    path = os.pathsep.join(([] if folder is None else [str(folder)]) + [os.environ.get("PYTHONPATH", "")])
    module, *arguments = map(str, words)
    command = [sys.executable, "-c", f"from {module} import main; main()", *arguments]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def _assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: torchvision ")
    for part in parts:
        assert part in done.stderr


@pytest.fixture
def misfit(tmp_path: Path) -> Path:
    """A folder with a torchvision that fails as the real one does beside a torch of another build."""
    (tmp_path / "path/torchvision").mkdir(parents=True)
    (tmp_path / "path/torchvision/__init__.py").write_text(f"raise RuntimeError({REASON!r})\n")
    metadata = tmp_path / "path/torchvision-0.1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.2\n")
    return tmp_path / "path"


def test_step_train_beside_the_installed_torchvision(tmp_path):
    """The real command and the real libraries, where these do not fit each other."""
    if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0:
        pytest.skip("torch and torchvision fit each other here")
    torch_version, version = (importlib.metadata.version(name) for name in ("torch", "torchvision"))
    done = _run(None, *TRAIN, "--data", tmp_path, "-o", tmp_path / "run")
    _assert_one_line(done, f"torchvision {version} does not fit torch {torch_version}", "pip install ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", [("-o", "run"), ("--dry-run",)])
def test_step_train_beside_a_misfit(misfit, tmp_path, what):
    done = _run(misfit, *TRAIN, "--data", tmp_path, *what)
    _assert_one_line(done, "torchvision 0.1.2 does not fit torch ", f"({REASON})", "torchvision==0.1.2")


def test_step_run_with_torch_needs_none(misfit, tiny_checkpoint, make_video, tmp_path):
    words = (make_video(), "--model", tiny_checkpoint, "--backend", "torch", "--out", tmp_path / "out")
    done = _run(misfit, "step_runtime.cli", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "detections.jsonl").is_file()


def test_training_and_its_data_set_alone_import_it():
    """So no other command can fail of it."""
    users: dict[str, set[str]] = {"torchvision": set(), "step.data.torchvision": set()}
    for path in (path for package in PACKAGES for path in package.rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] == "torchvision":
                    users["torchvision"].add(place)
                elif name in users:
                    users[name].add(place)
    assert users["torchvision"] == {"step/data/torchvision.py"}
    assert users["step.data.torchvision"]
    for place in users["step.data.torchvision"]:
        assert place == "step/data/ava_dataset.py" or place.startswith("step/training/"), place


@pytest.mark.parametrize(
    ("versions", "requirements", "wanted"),
    [
        (
            ("2.13.0+cpu", "0.28.0"),
            ["numpy", "torch==2.13.0"],
            "torch==2.13.0+cpu torchvision==0.28.0+cpu --index-url https://download.pytorch.org/whl/cpu",
        ),
        (
            ("2.9.1+cu128", "0.28.0+cpu"),
            ["torch (==2.13.0)"],
            "torch==2.13.0+cu128 torchvision==0.28.0+cu128 --index-url https://download.pytorch.org/whl/cu128",
        ),
        (("2.14.1", "0.28.0"), ["torch==2.13.0"], "--force-reinstall torch==2.13.0 torchvision==0.28.0"),
        (("2.9.0+gitabc", "0.24.0"), ["torchaudio==2.0"], "--force-reinstall torch==2.9.0 torchvision==0.24.0"),
    ],
)
def test_the_pair_that_fits(versions, requirements, wanted):
    assert pair_that_fits(*versions, requirements) == f"pip install {wanted}"
