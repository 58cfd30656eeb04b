"""Damaged JSON, checkpoints and graphs: read, or refused with one line."""

import json
import shutil
from pathlib import Path

import onnxruntime as ort
import pytest
from fake_gpu import add_fake_engines
from mutations import damaged_bytes, damaged_json, survives
from step_runtime.backends.onnxruntime import open_session
from step_runtime.benchmark.results import Results
from step_runtime.outputs.run_manifest import read_run

from step import load_checkpoint
from step.bundles.engines import find_damage
from step.bundles.manifest import MANIFEST, read_bundle
from step.bundles.onnx_files import load_onnx
from step.data.frame_store import read_index

MANY = pytest.mark.slow


def _read_bundle(path: Path) -> None:
    manifest = read_bundle(path.parent)
    for engines in manifest.engines.values():
        find_damage(engines, path.parent)


@pytest.mark.parametrize("examples", [120, pytest.param(3000, marks=MANY)])
@pytest.mark.parametrize("engines", [False, True])
def test_manifests(engines, examples, tiny_bundle, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    if engines:
        add_fake_engines(bundle)
    manifest = json.loads((bundle / MANIFEST).read_text())
    if engines:  # the rest is damaged in the other
        manifest = manifest | {"parity": None}
    survives(_read_bundle, bundle / MANIFEST, damaged_json(json.dumps(manifest)), examples=examples)


@pytest.mark.parametrize("examples", [800, pytest.param(5000, marks=MANY)])
def test_benchmarks(examples, tmp_path):
    row = {"name": "a", "backend": "torch", "precision": "fp32", "loop": "steps", "batch": 1, "steps": 3}
    content = {"schema_version": 1, "baseline": "a", "machine": {}, "versions": {"a": "1"}, "rows": [row]}
    survives(Results.read, tmp_path / "b.json", damaged_json(json.dumps(content)), examples=examples)


@pytest.mark.parametrize("examples", [600, pytest.param(5000, marks=MANY)])
def test_indexes(examples, tmp_path):
    (tmp_path / "v").mkdir()
    content = {"source_bytes": 10, "counts": {"00000": 30, "00001": 30}, "last_second": 1, "is_whole": True}
    path = tmp_path / "v" / "index.json"
    survives(lambda _path: read_index(tmp_path, "v"), path, damaged_json(json.dumps(content)), examples=examples)


@pytest.mark.parametrize("examples", [600, pytest.param(5000, marks=MANY)])
def test_runs(examples, tmp_path):
    content = {"status": "running", "source": "s", "video": "v", "is_live": True, "started": "2026-01-02T03:04:05Z"}
    path = tmp_path / "run.json"
    survives(lambda path: read_run(path.parent), path, damaged_json(json.dumps(content)), examples=examples)


@pytest.mark.parametrize("examples", [100, pytest.param(2000, marks=MANY)])
def test_checkpoints(examples, tiny_checkpoint, tmp_path):
    content = tiny_checkpoint.read_bytes()
    survives(load_checkpoint, tmp_path / "model.pth", damaged_bytes(content), examples=examples)


def _open(path: Path) -> None:
    load_onnx(path)
    open_session(path, options=ort.SessionOptions(), device="cpu")


@pytest.mark.parametrize("examples", [120, pytest.param(3000, marks=MANY)])
def test_graphs(examples, tiny_bundle, tmp_path):
    content = (tiny_bundle / "detect.onnx").read_bytes()
    no_text = content[:32] + bytes([content[32] ^ 0x80]) + content[33:]
    survives(
        _open, tmp_path / "graph.onnx", damaged_bytes(content), examples=examples, known=(b"", b"\x08\x08", no_text)
    )
