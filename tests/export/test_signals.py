"""Sends signals at every name that commands change while they replace what an earlier one wrote; takes minutes."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from step.bundles.manifest import MANIFEST, read_bundle
from step.checkpoints.own_format import read_torch_file
from step.files.scratch import sweep
from step.training import run_checkpoints as checkpoint

# Runs a command that signals itself before one of its calls, or says at its end how many there were.
_COMMAND = """
import atexit, importlib, os, sys
import step.files.atomic

number, code, module, *words = sys.argv[1:]
count, pid = 0, os.getpid()

def watched(call):
    def signalled(*args, **kwargs):
        global count
        count += 1
        if os.getpid() == pid and count == int(number):
            os.kill(pid, int(code))
        return call(*args, **kwargs)
    return signalled

for name in ("rename", "replace", "unlink", "rmdir"):
    setattr(os, name, watched(getattr(os, name)))
step.files.atomic.exchange = watched(step.files.atomic.exchange)
sys.argv = [module, *words]
importlib.import_module(module).main()
"""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


def _run(number: int, sent: signal.Signals, module: str, *words: object) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", _COMMAND, str(number), str(int(sent)), module, *map(str, words)]
    return subprocess.run(arguments, text=True, capture_output=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sent", _SIGNALS)
def test_export(sent, tiny_bundle, tiny_checkpoint, tmp_path):
    old = read_bundle(tiny_bundle)
    number, graphs = 0, set()
    while True:
        number += 1
        bundle = tmp_path / str(number) / "bundle"
        shutil.copytree(tiny_bundle, bundle)
        done = _run(
            number,
            sent,
            "step_export.cli",
            tiny_checkpoint,
            "-o",
            bundle,
            "--no-verify",
            "--graphs",
            "fused",
            "--overwrite",
        )
        manifest = read_bundle(bundle)
        assert manifest == old or set(manifest.graphs) == {"fused"}
        graphs.add(len(manifest.graphs))
        sweep(bundle.parent)  # as the next run does
        assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
        shutil.rmtree(bundle.parent)
        if done.returncode == 0:
            break
        assert done.returncode == (-sent if sent is signal.SIGKILL else 130), done.stderr
    assert number > 5
    assert graphs == {1, len(old.graphs)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sent", _SIGNALS)
def test_triton_repository(sent, tmp_path):
    old = tmp_path / "old"
    assert _run(0, sent, "step_export.cli", "toy", "--triton", old, "--triton-batch", 2).returncode == 0
    number, seen = 0, set()
    while True:
        number += 1
        place = tmp_path / str(number) / "repository"
        shutil.copytree(old, place)
        words = ("toy", "--triton", place, "--triton-batch", 4, "--overwrite")
        done = _run(number, sent, "step_export.cli", *words)
        batch = re.search(r"max_batch_size: (\d)", (place / "fused/config.pbtxt").read_text())[1]
        assert f'string_value: "{batch}"' in (place / "step/config.pbtxt").read_text()  # its clips a call
        assert (place / "fused/1/model.onnx").stat().st_size == (old / "fused/1/model.onnx").stat().st_size
        read_bundle(place / "step/1/bundle")
        seen.add(batch)
        sweep(place.parent)
        assert [path.name for path in place.parent.iterdir()] == ["repository"]
        shutil.rmtree(place.parent)
        if done.returncode == 0:
            break
        assert done.returncode == (-sent if sent is signal.SIGKILL else 130), done.stderr
    assert number > 5
    assert seen == {"2", "4"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sent", _SIGNALS)
def test_run(sent, make_video, tiny_bundle, tmp_path):
    old, new = make_video(frames=60), make_video(frames=30, name="new.mp4")
    words = ["--model", tiny_bundle, "--backend", "onnxruntime"]
    first = tmp_path / "first"
    assert _run(0, sent, "step_runtime.cli", old, *words, "--out", first).returncode == 0
    number, seen = 0, set()
    while True:
        number += 1
        out = tmp_path / str(number) / "out"
        shutil.copytree(first, out)
        done = _run(number, sent, "step_runtime.cli", new, *words, "--out", out, "--no-overlay")
        video = _video_of(out)
        seen.add(video)
        assert (out / "overlay.mp4").exists() == (video == old.stem)
        sweep(out.parent)
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        shutil.rmtree(out.parent)
        if done.returncode == 0 and "interrupted" not in done.stderr:
            break
    assert number > 5
    assert seen == {old.stem, new.stem}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sent", _SIGNALS)
def test_evaluation(sent, tmp_path):
    """The JSON that `step-eval` replaces is the old or the new one."""
    truth, results = tmp_path / "t.csv", tmp_path / "r.csv"
    truth.write_text("v1,0902,0.1,0.1,0.5,0.5,12,0\n")
    results.write_text("v1,0902,0.1,0.1,0.5,0.5,12,0.9\n")
    number, seen = 0, set()
    while True:
        number += 1
        (tmp_path / str(number)).mkdir()
        target = tmp_path / str(number) / "out.json"
        target.write_text('{"old": true}')
        words = ["--results", results, "--truth", truth, "--json", target]
        done = _run(number, sent, "step_runtime.evaluation.cli", *words)
        seen.add("old" in json.loads(target.read_text()))
        sweep(target.parent)
        assert [path.name for path in target.parent.iterdir()] == ["out.json"]
        if done.returncode == 0:
            break
        assert done.returncode == (-sent if sent is signal.SIGKILL else 130), done.stderr
    assert number > 3
    assert seen == {False, True}


# What training does after an update, without the training: checkpoints are written, the best is replaced, old ones go.
_CHECKPOINTS = """
import sys, torch
from pathlib import Path
from step import StepConfig, StepDetector
from step.training import run_checkpoints as checkpoint
from step.training.config import read_config

def main():
    torch.manual_seed(0)
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    config = read_config("toy_detect.yaml", kind="detect")
    model = StepDetector.from_config(StepConfig(width=0.125, image_size_px=64, fc_dim=16))
    for update in map(int, sys.argv[2:]):
        progress = checkpoint.TrainingProgress(update=update)
        for name in (f"{update:07d}.pth", checkpoint.BEST):
            checkpoint.save(folder, name, model, config, progress, {"optimizer": {}})
        checkpoint.prune(folder, keep=2)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sent", _SIGNALS)
def test_checkpoints(sent, tmp_path, monkeypatch):
    """Whatever interrupts, every checkpoint is whole and the latest are there."""
    (tmp_path / "writes_checkpoints.py").write_text(_CHECKPOINTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    first = tmp_path / "first"
    assert _run(0, sent, "writes_checkpoints", first, 1, 2).returncode == 0
    number, best = 0, set()
    while True:
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(first, folder)
        done = _run(number, sent, "writes_checkpoints", folder, 3, 4)
        sweep(folder)
        updates = [int(path.stem) for path in checkpoint.numbered(folder)]
        assert updates[-2:] in ([1, 2], [2, 3], [3, 4])
        for path in folder.iterdir():
            found = read_torch_file(path)["training"]["progress"]["update"]
            if path.name == checkpoint.BEST:
                best.add(found)
            else:
                assert found == int(path.stem)
        shutil.rmtree(folder)
        if done.returncode == 0:
            break
    assert number > 10
    assert best == {2, 3, 4}


def _video_of(out: Path) -> str:
    """Returns the one that all files are of."""
    assert MANIFEST not in {path.name for path in out.iterdir()}
    rows = (out / "detections.csv").read_text().splitlines()
    lines = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    (video,) = {row.split(",")[0] for row in rows} | {line["video"] for line in lines}
    return video
