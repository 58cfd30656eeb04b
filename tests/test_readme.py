"""Every command and every Python snippet of the README, docs/usage.md, docs/measured.md and docs/triton.md is run.

They run in one folder, in the order of the documents, beside the files that they name.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from helpers import MakeVideo, run_command

from step.data.toy.toy import generate
from step.data.toy.toy_cache import toy_folder

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/usage.md", "docs/measured.md", "docs/triton.md")
TEXT = "\n".join((ROOT / name).read_text() for name in DOCUMENTS)
# Smaller numbers, and no second look at what other tests look at, since a test need not measure.
SHORTER = {
    "-o toy-run": "-o toy-run --set optimizer.epochs=1 --set model.image_size_px=48 --set model.width=0.06",
    "--json bench.json": "--json bench.json --runs 1 --seconds 0 --backends onnxruntime,tensorrt",
    "--json b.json": "--json b.json --runs 1 --seconds 0 --backends onnxruntime,tensorrt",
    "--rounds 2": "--rounds 1 --seconds 1",
    "--rounds 3": "--rounds 1 --backend onnxruntime",
    "--runs 100": "--runs 1",
    "--minutes 10": "--minutes 0.05",
    "-o bundle-rtx": "-o bundle-rtx --graphs fused --no-verify --steps 1",
    "plugin_resources.py": "plugin_resources.py sm_90",
    "--train 240 --val 20": "--train 1 --val 1",
    "--most 10000000": "--most 100000",
    "model.pth -o bundle-fp16 ": "model.pth -o bundle-fp16 --no-verify --steps 1 ",
    "-o bundle-standard": "-o bundle-standard --graphs fused --no-verify",
}


def _blocks(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return [text for kind, text in blocks if kind == language]


COMMANDS = [line.split("  #")[0].strip() for block in _blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tiny_bundle, half_bundle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(tiny_checkpoint, folder / "model.pth")
    shutil.copytree(tiny_bundle, folder / "bundle")
    shutil.copytree(half_bundle, folder / "bundle-fp16")
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    (folder / "ava_val.csv").write_text("clip,0001,0.1,0.1,0.5,0.5,12,0\nclip,0001,0.1,0.1,0.5,0.5,14,0\n")
    (folder / "results.csv").write_text("clip,0001,0.1,0.1,0.5,0.6,12,0.5\n")
    (folder / "excluded.csv").write_text("clip,0000\n")
    (folder / "label_map.pbtxt").write_text('item { name: "stand" id: 12 }')
    (folder / "videos").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STEP_DATA_CACHE", str(folder / "cache"))
        generate(toy_folder(), videos={"val": 1})  # what `--data toy` finds, smaller
    return folder


@pytest.fixture
def with_video(folder: Path, make_video: MakeVideo) -> Path:
    shutil.copy(make_video(), folder / "video.mp4")
    shutil.copy(folder / "video.mp4", folder / "videos" / "clip.mp4")
    return folder


def _run(words: list[str], cwd: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | {"PATH": path, "STEP_DATA_CACHE": str(cwd / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _call(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One of our commands in this process, which has torch imported already."""
    (script,) = entry_points(group="console_scripts", name=words[0])
    code, printed, error = run_command(script.load(), capsys, *words[1:])
    assert code == 0, printed + error


def test_there_are_commands():
    assert len(COMMANDS) >= 40


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, with_video, capsys, monkeypatch):
    monkeypatch.chdir(with_video)
    monkeypatch.setenv("STEP_DATA_CACHE", str(with_video / "cache"))
    for long, short in SHORTER.items():
        command = command.replace(long, short)
    words = shlex.split(command)
    if words[0] == "make":
        # The targets themselves run the tests or the demo (see test_demo.py); here they have to exist.
        _run([*words, "--dry-run"], ROOT)
    elif words[:2] == ["pip", "install"]:
        name, _, extra = words[2].rstrip("]").partition("[")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert name == project["name"]
        assert not extra or extra in project["optional-dependencies"]
    elif words[0] == "step-export":  # what was there before is of other tests
        _call([*words, "--overwrite"], capsys)
    elif words[0] == "step-train":  # it needs torchvision
        _run([sys.executable, str(ROOT / "tests/torchvision_on_cpu.py"), "step.training.cli", *words[1:]], with_video)
    elif words[0] == "python":
        _run(words, with_video)
    else:
        _call(words, capsys)


@pytest.mark.parametrize("snippet", _blocks("python"))
def test_snippet(snippet, with_video):
    _run([sys.executable, "-c", snippet], with_video)
