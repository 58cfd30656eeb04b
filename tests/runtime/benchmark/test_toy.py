"""step-bench toy: the packaged model, with and without what it can be exported by."""

import importlib.util
import re
from pathlib import Path

import pytest
from helpers import assert_one_error, run_command
from step_runtime.benchmark.cli import main
from step_runtime.benchmark.configurations import list_configurations
from step_runtime.benchmark.options import BenchCommand
from step_runtime.benchmark.toy_bundles import toy_bundles
from step_runtime.evaluation.open_data import open_data

from step import StepError
from step.bundles.manifest import MANIFEST, read_bundle
from step.checkpoints.toy_model import BUNDLE, CHECKPOINT
from step.reporter import Reporter


def _command(*bundles, checkpoint=None, data=None):
    words = dict.fromkeys(BenchCommand.__dataclass_fields__)
    return BenchCommand(**words | {"bundles": tuple(map(Path, bundles)), "checkpoint": checkpoint, "data": data})


@pytest.fixture
def no_torch(monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else original(name))


def test_what_needs_torch_is_one_row(tiny_bundle, no_torch):
    common = {"batches": [1, 2], "steps": [None], "device": "auto", "threads": None}
    backends = ["torch-plain", "torch", "openvino"]
    configurations, missing = list_configurations([tiny_bundle], CHECKPOINT, backends=backends, **common)
    assert {each.backend for each in configurations} == {"openvino"}
    assert missing == ["torch-plain, torch: not measured: torch is not installed; pip install 'step-trt[export]'"]


def test_without_torch_the_packaged_bundle_is_measured(tmp_path, no_torch, capsys):
    """A copy of it: engines are built in it."""
    (copy,) = toy_bundles(tmp_path, ["onnxruntime"], Reporter())
    assert copy.parent == tmp_path
    assert read_bundle(copy) == read_bundle(BUNDLE)
    assert capsys.readouterr().err == (
        "toy-fp16: exported first, which needs torch and onnx: pip install 'step-trt[export]'\n"
    )


def test_what_toy_stands_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy = _command("toy")
    assert (toy.is_toy, toy.checkpoint_file, toy.data_folder, toy.model) == (True, CHECKPOINT, Path("toy"), "toy")
    assert _command("toy", data=Path("none")).data_folder is None
    other = _command("bundle", checkpoint=Path("toy"))
    assert (other.is_toy, other.checkpoint_file, other.data_folder) == (False, CHECKPOINT, None)
    assert other.model == "bundle, toy"
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / MANIFEST).write_text("{}")
    own = _command("toy")
    assert (own.is_toy, own.checkpoint_file) == (False, None)


def test_a_mistyped_command_or_data_set_is_offered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = "'comapre' is neither a bundle nor a command; did you mean 'compare'?"
    assert_one_error(run_command(main, capsys, "comapre", "a.json", "b.json"), re.escape(said), exit_code=2)
    assert_one_error(run_command(main, capsys, "toi"), "toi: no such bundle; did you mean 'toy'")
    with pytest.raises(StepError, match="toi: no such folder; did you mean 'toy'"):
        open_data(Path("toi"), "val", Reporter("quiet"))
    code, printed, _ = run_command(main, capsys, "-h")
    assert code == 0
    assert "compare" in printed  # the group's, not that of `run`
