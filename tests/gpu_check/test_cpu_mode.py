"""The whole check without a GPU: every stage's script, so that a slip does not cost a GPU's minutes."""

import os
import subprocess
import sys

import pytest
from gpu_check.catalogue import STAGES
from gpu_check.cli import main
from gpu_check.results import read_check
from helpers import ROOT, assert_one_error, run_command

QUICK = ("environment", "sanitizer", "cuda_runtime", "engine_loop", "kernel_times")
"""Those that need no exported model and collect no tests."""


def _run(out, *arguments: str) -> None:
    command = [sys.executable, "-m", "gpu_check", "--device", "none", "--out", out, *arguments]
    variables = os.environ | {"PYTHONPATH": str(ROOT / "benchmarks"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=590, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _assert_good(out, names) -> None:
    check = read_check(out / "gpu_check.json")
    assert check.device == "none"
    assert [stage.name for stage in check.stages] == list(names)
    for stage in check.stages:
        assert stage.status == ("skipped" if stage.name == "sanitizer" else "passed"), stage.problems
        assert stage.figures
        assert f"## {stage.name}\n" in (out / "gpu_check.md").read_text()


def test_quick_stages(tmp_path):
    _run(tmp_path, "--only", ",".join(QUICK))
    _assert_good(tmp_path, QUICK)


@pytest.mark.slow
def test_every_stage(tmp_path):
    _run(tmp_path, "--minutes", "9")
    _assert_good(tmp_path, [stage.name for stage in STAGES])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only", "kernel"], "--only kernel: no such stage; there are environment, bundles,"),
        (["--minutes", "0"], "--minutes is 0; it must be above 0"),
        (["--minutes", "nan"], "--minutes is nan; it must be above 0"),
    ],
)
def test_bad_options(more, said, tmp_path, capsys):
    assert_one_error(run_command(main, capsys, "--out", tmp_path, *more), said)


def test_what_is_typed_wrong(tmp_path, capsys):
    done = run_command(main, capsys, "--out", tmp_path, "--device", "rocm")
    assert_one_error(done, "Invalid value for '--device'", exit_code=2)


def test_nowhere_to_write(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    done = run_command(main, capsys, "--out", tmp_path / "file", "--device", "none", "--only", "environment")
    assert_one_error(done, "--out .*file: .*; name a folder that can be written")
