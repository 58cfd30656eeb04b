"""`step-export` as a user types it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import assert_one_error, make_detector, run_command
from step_export.cli import main

from step import StepConfig, save_checkpoint
from step.bundles.manifest import read_bundle

STEP_EXPORT = Path(sys.executable).with_name("step-export")


def step_export(*arguments) -> subprocess.CompletedProcess[str]:
    words = [str(STEP_EXPORT), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def assert_one_line(done, *said, exit_code=1):
    assert done.returncode == exit_code, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for text in said:
        assert text in lines[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("one-step") / "model.pth"
    save_checkpoint(make_detector(StepConfig(width=0.06, image_size_px=48, fc_dim=8, chunks=(1,))), path)
    return path


def test_prints_and_stores_the_parity_table(checkpoint, tmp_path, capsys):
    words = (checkpoint, "-o", tmp_path / "bundle", "--batch", "2", "--max-detections", "20")
    code, printed, error = run_command(main, capsys, *words)
    assert code == 0, error
    assert "Parity with PyTorch" in printed
    assert "verified against PyTorch" in printed
    manifest = read_bundle(tmp_path / "bundle")
    assert manifest.batch == 2
    assert manifest.thresholds.max_detections == 20
    assert manifest.parity


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--score-threshold", "nan"], "--score-threshold is nan"),
        (["--nms-iou", "nan"], "--nms-iou is nan"),
        (["--max-detections", "0"], "--max-detections is 0"),
        (["--batch", "0"], "--batch is 0"),
        (["--opset", "9"], "--opset is 9"),
        (["--steps", "2"], "--steps is 2"),
    ],
)
def test_bad_options(arguments, said, checkpoint, tmp_path, capsys):
    words = (checkpoint, "-o", tmp_path / "bundle", *arguments)
    assert_one_error(run_command(main, capsys, *words), re.escape(said))
    assert not list(tmp_path.iterdir())


def test_what_is_typed_wrong(checkpoint, tmp_path):
    done = step_export(checkpoint, "-o", tmp_path / "bundle", "--precision", "fp61")
    assert_one_line(done, "'fp61' is not one of 'fp32', 'fp16'; did you mean 'fp16'?", exit_code=2)
    assert not list(tmp_path.iterdir())


def test_bad_checkpoints(checkpoint, tmp_path, capsys):
    broken, foreign, other = tmp_path / "broken.pth", tmp_path / "foreign.pth", tmp_path / "other.pth"
    broken.write_bytes(checkpoint.read_bytes()[:1000])
    foreign.write_text("hello")
    torch.save({"weights": torch.zeros(1)}, other)
    for path, said in (
        (tmp_path / "none.pth", "no such file"),
        (broken, "damaged"),
        (foreign, "not a checkpoint"),
        (other, "not a STEP checkpoint"),
    ):
        assert_one_error(run_command(main, capsys, path, "-o", tmp_path / "bundle"), said)
    assert not (tmp_path / "bundle").exists()


def test_unwritable_output(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line(step_export(checkpoint, "-o", tmp_path / "file" / "bundle"), "cannot write", "a file is in the way")
