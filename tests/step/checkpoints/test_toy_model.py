"""The packaged toy model: its size, what it finds, as its log says, and the same mAP in every form."""

import json
from pathlib import Path

import pytest
from helpers import run_command
from step_runtime.evaluation.cli import main as step_eval

from step import load_checkpoint
from step.bundles.manifest import read_bundle
from step.checkpoints.toy_model import BUNDLE, CHECKPOINT, FOLDER, find_bundle, find_checkpoint, model_name
from step.data.toy import toy_cache
from step.files.atomic import sha256
from step.training.config import read_config

WANTED = 0.80


def _last_logged_scores():
    lines = [json.loads(line) for line in (FOLDER / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "mAP" in line][-1]["mAP"]


def test_what_is_shipped():
    assert CHECKPOINT.stat().st_size <= 4e6
    detector = load_checkpoint("toy")
    assert detector.config == read_config("toy_detect.yaml", kind="detect").step_config()
    assert read_config(str(FOLDER / "config.yaml"), kind="detect", changes={"data.folder": "toy-ava"}) == read_config(
        "toy_detect.yaml", kind="detect"
    )


def test_the_shipped_bundle_is_the_checkpoints():
    manifest = read_bundle(BUNDLE)
    assert manifest.source.sha256 == sha256(CHECKPOINT)
    assert manifest.config == load_checkpoint("toy").config
    assert manifest.parity
    assert all(row.passed for row in manifest.parity)
    for name in manifest.graphs:
        assert b"site-packages" not in (BUNDLE / f"{name}.onnx").read_bytes()  # no paths of whoever exported it


def test_what_toy_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (find_bundle("toy"), find_checkpoint("toy")) == (BUNDLE, CHECKPOINT)
    assert find_bundle("other") == find_checkpoint("other") == Path("other")
    assert [model_name(path) for path in (BUNDLE, CHECKPOINT, Path("other"))] == ["toy", "toy", "other"]
    Path("toy").mkdir()  # a data set, perhaps
    assert find_bundle("toy") == BUNDLE
    (Path("toy") / "manifest.json").touch()
    assert find_bundle("toy") == find_checkpoint("toy") == Path("toy")


@pytest.fixture
def few_videos(tmp_path, monkeypatch):
    monkeypatch.setenv("STEP_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(toy_cache, "VALIDATION_VIDEOS", 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_parity_and_quality_on_a_few_videos(few_videos, toy_bundle, capsys):
    """Every configuration on a CPU gives PyTorch's mAP, which is high."""
    words = ("parity", toy_bundle, "--checkpoint", "toy", "--data", "toy", "--steps", "3")
    code, printed, error = run_command(step_eval, capsys, *words)
    assert code == 0, printed + error
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith(("torch", "onnxruntime"))]
    assert [row[-1] for row in rows] == ["ok"] * 3
    assert float(rows[0][2]) > 0.6  # of so few key frames a class's is coarse


@pytest.mark.slow
def test_the_whole_validation_set(tmp_path, monkeypatch, capsys):
    """The committed weights find what the log says, after one step and after all, by the command of the README."""
    monkeypatch.setenv("STEP_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    logged = _last_logged_scores()
    found = {}
    for step in (1, 3):
        words = ("--model", "toy", "--data", "toy", "--steps", step, "--json", tmp_path / "s.json")
        code, _, error = run_command(step_eval, capsys, *words)
        assert code == 0, error
        found[step] = json.loads((tmp_path / "s.json").read_text())["mAP"]["0.5"]
        assert found[step] == pytest.approx(logged[str(step)], abs=0.02)
    assert found[3] >= WANTED
    assert found[3] > found[1]
