"""Ctrl-C while step-bench measures: what was finished is kept, and marked as a part."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from benchmark_results import make_row
from helpers import run_command
from step_runtime.benchmark import worker
from step_runtime.benchmark.cli import main
from step_runtime.benchmark.configurations import BenchConfiguration
from step_runtime.benchmark.messages import ANSWERS, Failed
from step_runtime.benchmark.results import Results
from step_runtime.benchmark.rounds import MeasuringInterrupted
from step_runtime.benchmark.worker_process import WorkerProcess


@pytest.fixture
def ctrl_c(monkeypatch):
    """Has the terminal's Ctrl-C come in the middle of a call, after so many calls went well."""

    def after(calls):
        real, done = WorkerProcess.time_calls, []

        def time_calls(self, count):
            if len(done) == calls:
                signal.raise_signal(signal.SIGINT)
            done.append(self)
            return real(self, count)

        monkeypatch.setattr(WorkerProcess, "time_calls", time_calls)

    return after


WORDS = ("--backends", "onnxruntime", "--threads", "1", "--runs", "1000", "--seconds", "0")


def test_the_rounds_that_were_finished_are_written(tiny_bundle, tmp_path, capsys, ctrl_c):
    """Both rows warm up; then two whole rounds, and a half."""
    ctrl_c(2 + 2 * 2 + 1)
    files = [tmp_path / name for name in ("r.json", "r.md", "r.html")]
    words = (*WORDS, "--json", files[0], "--markdown", files[1], "--html", files[2])
    code, printed, error = run_command(main, capsys, tiny_bundle, *words)
    assert code == 130
    assert error.strip() == "error: interrupted"
    assert "partial: interrupted after 2 rounds" in printed
    assert "\nso far: deploy onnxruntime fp32 " in printed
    results = Results.read(files[0])
    assert results.partial == "interrupted after 2 rounds"
    assert [row.runs for row in results.rows] == [2, 2]
    assert "Partial: interrupted after 2 rounds." in files[1].read_text()
    assert "Partial: interrupted after 2 rounds" in files[2].read_text()


def test_before_the_first_round_there_is_nothing_to_write(tiny_bundle, tmp_path, capsys, ctrl_c):
    ctrl_c(2 + 1)
    code, printed, error = run_command(main, capsys, tiny_bundle, *WORDS, "--json", tmp_path / "r.json")
    assert (code, printed, error.strip()) == (130, "", "error: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_rounds_are_cut_to_those_that_all_have():
    rows = [
        make_row(times_ms=[1, 2, 3], rounds_j=[5.0, 6.0, 7.0]),
        make_row("openvino", [1, 2], rounds_j=[None, None]),
        make_row("tensorrt", [1], problem="crashed"),
    ]
    interrupt = MeasuringInterrupted(rows)
    assert interrupt.num_rounds == 2
    assert [len(row.rounds_s) for row in interrupt.rows] == [2, 2, 1]
    assert [row.energy_j for row in interrupt.rows] == [11.0, None, None]
    assert MeasuringInterrupted([*rows, make_row("torch", [])]).rows == []


def test_ctrl_c_of_a_terminal_does_not_reach_the_workers(tiny_bundle, tmp_path, tiny_clips):
    """It goes to a whole process group, of which a worker is none."""
    np.save(tmp_path / "clips.npy", tiny_clips[:1])
    configuration = BenchConfiguration(model=str(tiny_bundle), backend="onnxruntime", precision="fp32", loop="fused")
    with WorkerProcess(configuration, tmp_path / "clips.npy") as process:
        assert os.getpgid(process.process_id) != os.getpgid(0)


def test_a_request_that_is_none():
    """One line says so, and the worker goes on."""
    done = subprocess.run(
        [sys.executable, "-m", worker.__name__],
        input='{"kind": "sing"}\nnonsense\n{"kind": "tell_memory"}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = [ANSWERS.validate_json(line) for line in done.stdout.splitlines()]
    assert all(isinstance(answer, Failed) for answer in answers)
    assert [answer.problem for answer in answers] == [
        """'{"kind": "sing"}' is no request""",
        "'nonsense' is no request",
        "nothing is loaded",
    ]
    assert done.stderr == ""
