"""step-bench: rows of every configuration, configurations that cannot run, statistics."""

import os
import shutil
import signal

import numpy as np
import pynvml
import pytest
from fake_gpu import GPU
from helpers import assert_one_error, run_command
from step_runtime.benchmark import gpu_meter
from step_runtime.benchmark.charts import pareto_front
from step_runtime.benchmark.cli import main
from step_runtime.benchmark.configurations import BenchConfiguration, list_configurations
from step_runtime.benchmark.gpu_meter import GpuMeter
from step_runtime.benchmark.results import ResultRow, Results
from step_runtime.benchmark.rounds import Row, measure, score_rows
from step_runtime.benchmark.statistics import interval, median_ratio, percentile
from step_runtime.benchmark.worker_process import WorkerProcess
from step_runtime.evaluation.cli import main as eval_main

from step import StepError


def test_percentiles_are_trtexecs():
    """Index max(n - 1 - int((1 - p / 100) n), 0) of the sorted times."""
    times = [float(value) for value in range(200, 0, -1)]
    assert [percentile(times, p) for p in (50, 95, 99, 100)] == [100.0, 190.0, 198.0, 200.0]
    assert percentile([3.0], 99) == 3.0
    assert percentile([1.0, 2.0], 50) == 1.0


def test_a_ratio_and_its_interval():
    """Rounds that are slow for both do not widen the interval."""
    state = np.random.RandomState(1)
    load = state.uniform(1, 3, 40)
    baseline = [[value * state.uniform(0.99, 1.01)] for value in load]
    times = [[0.5 * value * state.uniform(0.99, 1.01)] for value in load]
    ratio = median_ratio(times, baseline)
    assert ratio.low <= ratio.value <= ratio.high
    assert 0.4 < ratio.low < 0.5 < ratio.high < 0.6


def test_one_round_has_a_ratio_but_no_interval():
    ratio = median_ratio([[1.0, 2.0, 6.0]], [[4.0]])
    assert (ratio.value, ratio.low, ratio.high) == (0.5, None, None)
    assert interval(ratio.low, ratio.high) == ""


@pytest.fixture
def bench(capsys, tmp_path):
    def run(*words):
        return run_command(main, capsys, *words)

    return run


def test_every_cpu_way_in_rounds(bench, tiny_bundle, tiny_checkpoint, tmp_path):
    out = tmp_path / "r.json"
    words = (
        "--runs",
        "2",
        "--seconds",
        "0",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--json",
        out,
        "--markdown",
        tmp_path / "r.md",
    )
    code, printed, error = bench(tiny_bundle, "--checkpoint", tiny_checkpoint, *words)
    assert code == 0, printed + error
    results = Results.read(out)
    names = [row.name for row in results.rows]
    assert names == [
        "torch-plain",
        "torch fp32",
        "onnxruntime fp32 fused",
        "onnxruntime fp32 steps",
        "openvino fp32 fused",
        "openvino fp32 steps",
    ]
    assert results.baseline == "torch-plain"
    for row in results.rows:
        assert row.problem is None
        assert row.runs >= 2
        assert 0 < row.p50_ms <= row.p95_ms <= row.p99_ms
        assert row.ratio_low <= row.ratio <= row.ratio_high
        assert row.host_bytes > 5e7
        assert row.name in printed
        assert row.threads == 1
        assert row.source_sha256 == results.rows[0].source_sha256  # the bundle was exported from the checkpoint
    assert "; 1 thread ran; ratios to torch-plain" in printed
    assert printed.splitlines()[-1].startswith(("deploy ", "as fast within noise: "))
    assert results.rows[0].ratio == 1
    assert (tmp_path / "r.md").read_text().count("\n| ") == 6
    code, printed, error = bench("compare", out, out)
    assert code == 0, error
    assert printed.count("within noise") == 6


def test_what_is_not_there_is_a_line(bench, tiny_bundle, tmp_path):
    words = ("--backends", "tensorrt,onnxruntime", "--runs", "1", "--seconds", "0", "--json", tmp_path / "r.json")
    code, printed, error = bench(tiny_bundle, *words)
    assert code == 0, error
    assert "tensorrt fp32 fused: not measured: --backends tensorrt: " in printed
    rows = Results.read(tmp_path / "r.json").rows
    assert [row.problem is None for row in rows] == [False, False, True, True]
    assert rows[2].ratio == 1
    done = bench(tiny_bundle, "--backends", "tensorrt", "--runs", "1")
    assert_one_error((done[0], "", done[2]), "none of the configurations could run here")


def _both_loops(bundle):
    return [
        BenchConfiguration(model=str(bundle), backend="onnxruntime", precision="fp32", loop=loop, device="cpu")
        for loop in ("fused", "steps")
    ]


def test_a_crash_takes_its_own_row(tiny_bundle, tmp_path, monkeypatch, tiny_clips):
    """A process that is killed in its second round."""
    np.save(tmp_path / "clips.npy", tiny_clips[:1])
    configurations = _both_loops(tiny_bundle)
    real, rounds = WorkerProcess.time_calls, []

    def time_calls(self, count):
        rounds.append(self)
        if len(rounds) == 3:
            os.kill(self.process_id, signal.SIGKILL)
        return real(self, count)

    monkeypatch.setattr(WorkerProcess, "time_calls", time_calls)
    rows = measure(configurations, tmp_path / "clips.npy", min_runs=4, min_s=0)
    assert rows[0].problem == "its process was ended by SIGKILL"
    assert rows[1].problem is None
    assert len(rows[1].times_s) >= 4


def test_accuracy_beside_speed(bench, tiny_bundle, tiny_data, tmp_path, capsys):
    """The mAP of each configuration is step-eval's, and the page has both figures."""
    checkpoint = tiny_bundle.parent / "model.pth"
    words = ("--runs", "1", "--seconds", "0", "--json", tmp_path / "r.json", "--html", tmp_path / "r.html")
    measured = (
        "--checkpoint",
        checkpoint,
        "--backends",
        "torch,onnxruntime",
        "--batch",
        "1,2",
        "--data",
        tiny_data,
    )
    code, printed, error = bench(tiny_bundle, *measured, *words)
    assert code == 0, printed + error
    results = Results.read(tmp_path / "r.json")
    means = [row.mean_ap for row in results.rows]
    assert len(means) == 6
    evaluated = run_command(eval_main, capsys, "--model", tiny_bundle, "--data", tiny_data)[1]
    assert means == pytest.approx([float(evaluated.rsplit("frame-mAP@0.5: ")[1])] * 6, abs=1e-6)
    assert means[0] > 0.5
    page = (tmp_path / "r.html").read_text()
    assert [heading in page for heading in ("<h2>Time</h2>", "<h2>Accuracy and speed</h2>")] == [True, True]
    assert f"<title>step-bench: {tiny_bundle.name}, model.pth</title>" in page
    assert "http" not in page
    assert f", mAP {means[0]:.4f}" in printed.splitlines()[-2] + printed.splitlines()[-1]
    assert results.rows[0].model_bytes == checkpoint.stat().st_size
    assert results.rows[1].model_bytes == (tiny_bundle / "fused.onnx").stat().st_size


def test_the_same_numbers_are_scored_once(tmp_path):
    """By the fastest: PyTorch's own pools and oneDNN's have the same maxima, and a batch is as good as its clips."""

    class Worker:
        def __init__(self, name):
            self.name = name

        def mean_ap(self, *_):
            scored.append(self.name)
            return len(scored) / 10

    scored = []
    alike = {"model": "m.pth", "precision": "fp32", "loop": "steps"}
    configurations = [
        BenchConfiguration(backend="torch-plain", **alike),
        BenchConfiguration(backend="torch", **alike),
        BenchConfiguration(backend="torch", batch=2, **alike),
        BenchConfiguration(backend="torch-compile", **alike),
    ]
    rows = [
        Row(configuration, rounds_s=[[time_s]])
        for configuration, time_s in zip(configurations, (4.0, 2.0, 3.0, 1.0), strict=True)
    ]
    workers = {index: Worker(row.configuration.name) for index, row in enumerate(rows)}
    score_rows(rows, workers, (tmp_path, "val"), tmp_path, lambda *_: None)
    assert scored == ["torch-compile", "torch fp32"]
    assert [row.mean_ap for row in rows] == [0.2, 0.2, 0.2, 0.1]


def test_a_data_set_that_is_not_there(bench, tiny_bundle):
    assert_one_error(bench(tiny_bundle, "--data", "nowhere"), "--data nowhere: no such folder")


def test_the_front():
    """Neither slower and less accurate than another, nor equally fast and less accurate."""
    row = {"way": {}, "problem": None}
    points = [(1.0, 0.9), (2.0, 0.8), (2.0, 0.7), (1.5, 0.8), (3.0, 0.5)]
    rows = [ResultRow(name=str(i), clips_per_s=x, mean_ap=y, **row) for i, (x, y) in enumerate(points)]
    assert [row.name for row in pareto_front(rows)] == ["0", "1", "4"]


def test_bundles_of_one_precision_have_names(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "other")
    common = {"batches": [1], "steps": [None], "device": "auto", "threads": None}
    configurations, missing = list_configurations(
        [tiny_bundle], tiny_bundle / "x.pth", backends=["torch", "openvino"], **common | {"steps": [7]}
    )
    assert [each.name for each in configurations] == ["torch fp32 7 steps"]  # its row will say what is wrong
    assert missing[0].startswith("batch 1, 7 steps: not measured: no bundle takes that (")
    configurations, missing = list_configurations(
        [tiny_bundle, tmp_path / "other"], None, backends=["openvino", "torch"], **common
    )
    assert missing == ["torch: not measured: a checkpoint is run; give --checkpoint"]
    assert [each.name for each in configurations][::2] == [
        f"openvino fp32 fused ({tiny_bundle.name})",
        "openvino fp32 fused (other)",
    ]
    configurations, _ = list_configurations(
        [tiny_bundle], None, backends=["onnxruntime", "onnxruntime-cuda", "tensorrt-rtx-no-graph"], **common
    )
    assert [
        (configuration.device, configuration.uses_gpu, configuration.library, configuration.has_cuda_graph)
        for configuration in configurations[::2]
    ] == [
        ("cpu", False, None, True),
        ("cuda", True, None, True),
        ("auto", True, "tensorrt-rtx", False),
    ]


def test_energy_is_what_the_rounds_of_a_configuration_used(tiny_bundle, tmp_path, monkeypatch, tiny_clips):
    """NVML's count goes up by 5 J with every reading: each round has one reading before it and one after."""
    np.save(tmp_path / "clips.npy", tiny_clips[:1])
    readings = iter(range(0, 10**6, 5000))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(gpu_meter, "find_gpu", lambda _device: GPU)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda identity: identity)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _handle: next(readings))
    real = WorkerProcess.__init__

    def on_a_gpu(self, configuration, clips):
        real(self, configuration, clips)
        self.loaded = self.loaded.model_copy(update={"gpu": 0})

    monkeypatch.setattr(WorkerProcess, "__init__", on_a_gpu)
    configuration = BenchConfiguration(
        model=str(tiny_bundle), backend="onnxruntime", precision="fp32", loop="fused", device="cpu"
    )
    rows = measure([configuration], tmp_path / "clips.npy", min_runs=3, min_s=0)
    assert rows[0].energy_j == 5 * len(rows[0].rounds_s)
    result = Results.of(rows).rows[0]
    assert result.joules_per_clip == pytest.approx(5 * len(rows[0].rounds_s) / result.runs)


def test_a_driver_that_does_not_say(monkeypatch):
    def refuses():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", refuses)
    meter = GpuMeter(0)
    assert (meter.energy_j(), meter.process_bytes(1), meter.clocks()) == (None, None, {})


def test_an_idle_process_that_dies_takes_its_own_row(tiny_bundle, tmp_path, monkeypatch, tiny_clips):
    """Killed while another has its round: what it is asked next cannot be written."""
    np.save(tmp_path / "clips.npy", tiny_clips[:1])
    configurations = _both_loops(tiny_bundle)
    real, rounds = WorkerProcess.time_calls, []

    def time_calls(self, count):
        rounds.append(self)
        if len(rounds) == 4:
            os.kill(rounds[2].process_id, signal.SIGKILL)
        return real(self, count)

    monkeypatch.setattr(WorkerProcess, "time_calls", time_calls)
    rows = measure(configurations, tmp_path / "clips.npy", min_runs=4, min_s=0)
    assert rows[0].problem == "its process was ended by SIGKILL"
    assert rows[1].problem is None
    assert rows[1].host_bytes > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch", "1,0"), "--batch is 0; it must be a whole number of at least 1"),
        (
            ("--backends", "torch,torch-plain"),
            "nothing to measure: torch, torch-plain: not measured: a checkpoint is run",
        ),
        (("--source", "none.mp4"), "none.mp4"),
        (("--json", "/tmp/x/../r", "--html", "/tmp/r"), "--json and --html are both /tmp/r; give each a file"),
        (
            ("--backends", "onnxruntime", "--runs", "1", "--seconds", "0", "--baseline", "x"),
            "--baseline is 'x'; give one of onnxruntime",
        ),
    ],
)
def test_bad_input(words, said, bench, tiny_bundle):
    assert_one_error(bench(tiny_bundle, *words), said)


def test_a_batch_beyond_the_memory_is_a_line_that_says_so(bench, tiny_bundle):
    done = bench(tiny_bundle, "--backends", "onnxruntime", "--batch", "10000000", "--runs", "1")
    assert done[1].count("not measured: memory does not suffice for it; give a smaller --batch") == 2


def test_without_arguments_it_shows_its_help(bench):
    code, _, error = bench()
    assert code == 2
    assert error.startswith("Usage: ")
    assert "\n  compare " in error


def test_no_bundle(bench):
    assert_one_error(bench("nowhere"), "nowhere")


def test_nothing_is_measured_of_a_way_that_cannot_be_loaded(tmp_path, tiny_clips):
    np.save(tmp_path / "clips.npy", tiny_clips[:1])
    with pytest.raises(StepError, match="no such bundle"):
        WorkerProcess(
            BenchConfiguration(model="gone", backend="onnxruntime", precision="fp32", loop="fused"),
            tmp_path / "clips.npy",
        )


def test_a_worker_that_talks_nonsense(tmp_path, tiny_clips, monkeypatch):
    np.save(tmp_path / "clips.npy", tiny_clips[:1])
    monkeypatch.setattr("step_runtime.benchmark.worker_process.WORKER", "this")  # what it prints is no answer
    configuration = BenchConfiguration(model="m", backend="onnxruntime", precision="fp32", loop="fused")
    with pytest.raises(StepError, match="its process said 'The Zen of Python.*', which is no answer"):
        WorkerProcess(configuration, tmp_path / "clips.npy")
