"""step-bench roofline: limits worked out by hand, stages beside the whole, peaks, known GPUs, the command."""

import json
import subprocess

import numpy as np
import pytest
from helpers import assert_one_error, run_command
from step_runtime.benchmark.cli import main
from step_runtime.benchmark.roofline import peaks as peaks_module
from step_runtime.benchmark.roofline import stage_calls as stage_calls_module
from step_runtime.benchmark.roofline import stage_times as stage_times_module
from step_runtime.benchmark.roofline.known_gpus import known_gpu, known_gpus
from step_runtime.benchmark.roofline.peak_answer import PeakAnswer
from step_runtime.benchmark.roofline.peaks import Peaks, Product, measure_cpu_peaks
from step_runtime.benchmark.roofline.report import roofline_figure, roofline_markdown, summary_lines
from step_runtime.benchmark.roofline.roofline import roofline
from step_runtime.benchmark.roofline.stage_calls import onnxruntime_call, openvino_call
from step_runtime.benchmark.roofline.stage_times import PRODUCTS, StageTimes, stage_inputs, time_stages
from step_runtime.benchmark.roofline.stages import load_stages
from step_runtime.benchmark.roofline.work import GraphWork

from step import StepError
from step.bundles.manifest import read_bundle


def _work(multiply_adds, least_bytes):
    return GraphWork(
        multiply_adds=multiply_adds, roi_align_multiply_adds=0, least_bytes=least_bytes, bytes=2 * least_bytes
    )


PEAKS = Peaks(name="a machine", multiply_adds_per_s={"fp32": 1000.0}, bytes_per_s=10.0, source="made up")
WORK = {"backbone": _work(4000, 20), "detect": _work(100, 5), "fused": _work(4100, 22)}
TIMES = StageTimes(backend="onnxruntime", times_s={"backbone": [5.0, 8.0, 9.0], "detect": [1.0], "fused": [8.2]})


def test_limits_by_hand():
    """1000 a second, 10 bytes a second: the ridge is at 100 a byte."""
    result = roofline(WORK, PEAKS, bundle="b", batch=1, precision="fp32", times=[TIMES])
    backbone, detect, fused = result.limits
    assert (backbone.intensity, backbone.attainable_per_s, backbone.floor_s) == (200, 1000, 4)
    assert (detect.intensity, detect.attainable_per_s, detect.floor_s) == (20, 200, 0.5)
    assert [limit.is_memory_bound for limit in (backbone, detect, fused)] == [False, True, False]
    assert (result.floor_s, result.product_s) == (4.5, 4.1)
    assert TIMES.median_s("backbone") == 8
    assert (backbone.achieved_per_s(8), backbone.fraction(8)) == (500, 0.5)
    assert result.whole_s(TIMES) == 8.2
    alone = StageTimes(backend="x", times_s={"backbone": [8.0], "detect": [1.0]})
    assert result.whole_s(alone) == 9
    assert (result.turns_per_s, result.over_turns(TIMES)) == (None, None)
    timed = StageTimes(
        backend="x", times_s=TIMES.times_s | {"product 512": [2.0**19], "product 1024": [1.0, 2.0**20, 2.0**21]}
    )
    slower = StageTimes(backend="y", times_s=TIMES.times_s | {"product 1024": [2.0**22]})
    both = roofline(WORK, PEAKS, bundle="b", batch=1, precision="fp32", times=[timed, slower])
    assert both.turns_per_s == 2**30 / 2**20
    assert both.over_turns(slower) == 8.2 * 1024 / 4100
    assert "y: 8200 ms, 2.00 of the multiply-adds alone, 2.05 at the product's speed in rounds" in summary_lines(both)


def test_what_is_said(tmp_path):
    missing = StageTimes(backend="openvino", problem="openvino is not installed")
    result = roofline(WORK, PEAKS, bundle="b", batch=2, precision="fp32", times=[TIMES, missing])
    table = roofline_markdown(result)
    assert "| backbone | 0.0 | 0.0 | 200 | compute | 4000 | 8000 | 50 % |" in table
    assert "| detect | 0.0 | 0.0 | 20 | memory | 500 | 1000 | 50 % |" in table
    lines = summary_lines(result)
    assert "2 clips: at least 4500 ms; its multiply-adds alone, at the peak, 4100 ms" in lines
    assert "onnxruntime: 8200 ms, 2.00 of the multiply-adds alone" in lines
    assert "openvino: not measured: openvino is not installed" in lines
    result.write(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    whole = {"median_s": 8.2, "over_product": pytest.approx(2), "over_product_in_rounds": None}
    assert content["whole"] == {"onnxruntime": whole}
    assert content["problems"] == {"openvino": "openvino is not installed"}
    assert content["stages"][0]["measured"]["onnxruntime"]["fraction"] == 0.5


@pytest.mark.parametrize("times", [(), (TIMES,)])
def test_the_plot_has_both_roofs_and_every_stage(times):
    (axes,) = roofline_figure(roofline(WORK, PEAKS, bundle="b", batch=1, precision="fp32", times=times)).axes
    x, y = (np.asarray(values, float) for values in axes.lines[0].get_data())
    assert (x[1], y[1]) == (100, 1000)
    assert y[0] == pytest.approx(10 * x[0])
    assert y[2] == 1000
    (points,) = axes.collections
    expected = [[200, 500], [20, 100]] if times else [[200, 1000], [20, 200]]
    assert points.get_offsets().tolist() == expected
    said = {text.get_text() for text in axes.texts}
    assert {"backbone", "detect", "fp32 peak: 0 G/s", "memory: 0 GB/s"} == said
    low, high = axes.get_xlim()
    assert low < 20 < 200 < high


def test_stages_one_after_the_other_are_the_whole(tiny_bundle):
    """What each stage reads is what the stages before it gave: the last one gives the fused graph's detections."""
    manifest = read_bundle(tiny_bundle)
    models = load_stages(tiny_bundle, manifest)
    inputs = stage_inputs(tiny_bundle, manifest, models, batch=2)
    found = {}
    for name in ("context", "detect", "fused"):
        for make in (onnxruntime_call, openvino_call):
            found[name, make.__name__] = make(name, models[name], inputs[name], 1)()
    np.testing.assert_allclose(
        found["context", "onnxruntime_call"]["context"], inputs["step1"]["context"], rtol=1e-5, atol=1e-6
    )
    for make in ("onnxruntime_call", "openvino_call"):
        np.testing.assert_allclose(_rows(found["detect", make]), _rows(found["fused", make]), atol=1e-4)


def _rows(found):
    """Boxes and scores [B, R, 5], in an order that does not hang on the last digit of a score."""
    rows = np.concatenate((found["boxes"], found["scores"][..., None]), axis=-1)
    return np.stack([clip[np.lexsort(clip.round(3).T)] for clip in rows])


def test_rounds_alternate(tiny_bundle, monkeypatch):
    """A B C A B C, until all have enough."""
    order = []

    def load(backend, models, _inputs, _threads):
        return {stage: lambda stage=stage: order.append((backend, stage)) or {} for stage in models}

    monkeypatch.setattr(stage_times_module, "load_calls", load)
    times = time_stages(
        tiny_bundle, read_bundle(tiny_bundle), backends=["openvino", "onnxruntime"], threads=1, min_runs=3, min_s=0
    )
    stages = ["backbone", "context", "step1", "step2", "step3", "detect", "fused", *PRODUCTS]
    one_round = [(backend, stage) for backend in ("openvino", "onnxruntime") for stage in stages]
    warm = [pair for pair in one_round for _ in range(2)]
    assert order == warm + 3 * one_round
    assert [len(one.times_s["step2"]) for one in times] == [3, 3]


def test_a_library_that_cannot_is_a_line(tiny_bundle, monkeypatch):
    def refuse(stage, _model, _inputs, _threads):
        raise StepError(f"OpenVINO cannot load {stage}: no reason")

    monkeypatch.setattr(stage_calls_module, "openvino_call", refuse)
    first, second = time_stages(
        tiny_bundle,
        read_bundle(tiny_bundle),
        backends=["onnxruntime", "openvino"],
        threads=1,
        min_runs=1,
        min_s=0,
    )
    assert first.problem is None
    assert first.median_s("step3") > 0
    assert second == StageTimes(backend="openvino", problem="OpenVINO cannot load backbone: no reason")


def test_measured_peaks(monkeypatch):
    """NumPy's real product and copying; the rest as if it were not installed."""
    monkeypatch.setattr(peaks_module, "PRECISIONS", {"numpy": ("fp32",), "none": ("fp32",)})
    peaks = measure_cpu_peaks(threads=1, seconds=0.02)
    good, bad = peaks.products
    assert good.library == "numpy"
    assert good.multiply_adds_per_s == peaks.rate("fp32")
    assert 1e8 < peaks.rate("fp32") < 1e13
    assert 1e8 < peaks.bytes_per_s < 1e13
    assert bad.multiply_adds_per_s is None
    assert "invalid choice: 'none'" in bad.problem
    with pytest.raises(StepError, match="1 threads has no rate for fp16; it has some for fp32"):
        peaks.rate("fp16")


def test_the_best_library_makes_the_peak(monkeypatch):
    asked = []

    def answer(library, precision, threads, _seconds):
        asked.append((library, precision, threads))
        if library == "openvino":
            return PeakAnswer(problem="not here")
        return PeakAnswer(rate={"numpy": 2e9, "torch": 1e9, "copy": 5.0}[library], size=512)

    monkeypatch.setattr(
        peaks_module, "PRECISIONS", {"numpy": ("fp32",), "openvino": ("fp32",), "torch": ("fp32", "bf16")}
    )
    monkeypatch.setattr(peaks_module, "run_peak_worker", answer)
    monkeypatch.setattr(peaks_module, "cpu_flags", lambda: {"avx512_bf16"})
    peaks = measure_cpu_peaks(threads=3)
    assert peaks.multiply_adds_per_s == {"fp32": 2e9, "bf16": 1e9}
    assert peaks.products[1] == Product(library="openvino", precision="fp32", problem="not here")
    assert asked[-1] == ("copy", "bytes", 3)
    monkeypatch.setattr(peaks_module, "run_peak_worker", lambda *_: PeakAnswer(problem="nothing here"))
    with pytest.raises(StepError, match="the peak cannot be measured: nothing here"):
        measure_cpu_peaks(threads=3)


def test_a_worker_that_hangs(monkeypatch):
    def run(*_words, **_options):
        raise subprocess.TimeoutExpired("x", 1)

    monkeypatch.setattr(peaks_module.subprocess, "run", run)
    with pytest.raises(StepError, match="numpy took more than 120"):
        measure_cpu_peaks(threads=1, seconds=0)


def test_known_gpus():
    """Data sheets count two operations a multiply-add; all names are found, and no slower tensor cores are listed."""
    peaks = known_gpu("nvidia h200").peaks()
    assert peaks.multiply_adds_per_s == pytest.approx({"fp32": 33.45e12, "tf32": 247.35e12, "fp16": 494.7e12})
    assert peaks.bytes_per_s == 4.8e12
    for gpu in known_gpus():
        assert known_gpu(gpu.name) == gpu
        assert gpu.fp32 <= (gpu.tf32 or gpu.fp32) <= gpu.fp16
        assert gpu.source
    assert known_gpu("GeForce RTX4090").name == "RTX 4090"
    assert known_gpu("L4").name == "L4"
    with pytest.raises(StepError, match="--gpu 'A100' may be several; give one of A100 40GB SXM, A100 80GB SXM"):
        known_gpu("A100")
    with pytest.raises(StepError, match="--gpu 'Voodoo 2' is not known; give one of A100 40GB SXM, .*, T4"):
        known_gpu("Voodoo 2")


@pytest.fixture
def bench(capsys, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))

    def run(*words):
        return run_command(main, capsys, "roofline", *words)

    return run


def test_the_command(bench, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(peaks_module, "PRECISIONS", {"numpy": ("fp32",)})
    monkeypatch.setattr("os.getloadavg", lambda: (3.0, 0.0, 0.0))
    files = ("--json", tmp_path / "r.json", "--plot", tmp_path / "r.png", "--markdown", tmp_path / "r.md")
    code, printed, error = bench(tiny_bundle, "--threads", "1", "--runs", "2", "--seconds", "0", *files)
    assert code == 0, error
    assert "the machine is busy (load 3.0): times will be too long" in error
    content = json.loads((tmp_path / "r.json").read_text())
    assert [row["stage"] for row in content["stages"]][-2:] == ["detect", "fused"]
    for row in content["stages"]:
        for backend in ("onnxruntime", "openvino"):
            assert len(row["measured"][backend]["times_s"]) >= 2
            assert row["measured"][backend]["median_s"] > 0
        assert row["stage"] in printed
    assert content["whole"]["openvino"]["over_product"] > 0
    assert content["whole"]["openvino"]["over_product_in_rounds"] > 0
    assert "in rounds with the stages, a matrix product reached" in printed
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert "| fused |" in (tmp_path / "r.md").read_text()
    assert max(len(line) for line in printed.splitlines() if line.strip().startswith(("fused", "step"))) <= 80


def test_a_gpu_that_is_not_here(bench, half_bundle, tmp_path):
    code, printed, error = bench(half_bundle, "--gpu", "RTX 4090", "--batch", "2", "--json", tmp_path / "r.json")
    assert code == 0, error
    assert "RTX 4090: 82600 G multiply-adds/s in fp16, 1008 GB/s (NVIDIA Ada GPU architecture whitepaper)" in printed
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["whole"] == {}
    backbone = content["stages"][0]
    assert backbone["floor_s"] == max(
        backbone["work"]["multiply_adds"] / 82.6e12, backbone["work"]["least_bytes"] / 1008e9
    )
    done = bench(half_bundle, "--gpu", "T4", "--batch", "2", "--precision", "tf32")
    assert_one_error(done, "T4 has no rate for tf32; it has some for fp32, fp16")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--threads", "0"), "--threads is 0; it must be a whole number from 1 to"),
        (("--gpu", "x"), "--gpu 'x' is not known; give one of A100"),
        (("--plot", "r.doc"), "--plot is r.doc: no format of a figure; end it with .png, .svg or .pdf"),
        (("--precision", "fp16"), "--precision is for --gpu"),
    ],
)
def test_bad_input(words, said, bench, tiny_bundle):
    assert_one_error(bench(tiny_bundle, *words), said)


def test_what_is_typed_wrong(bench, tiny_bundle):
    done = bench(tiny_bundle, "--backends", "tensorrt")
    assert_one_error(done, "'tensorrt' is not one of 'onnxruntime'", exit_code=2)


def test_other_bundles(bench, half_bundle):
    assert_one_error(bench("nowhere"), "nowhere: no such bundle; make one with: step-export")
    assert_one_error(bench(half_bundle), "its graphs take 2 clips a call, not 1; give --batch")


def test_no_backend_could_run(bench, tiny_bundle, monkeypatch):
    def refuse(*_):
        raise StepError("not today")

    monkeypatch.setattr(peaks_module, "PRECISIONS", {"numpy": ("fp32",)})
    monkeypatch.setattr(stage_calls_module, "openvino_call", refuse)
    monkeypatch.setattr("step_runtime.benchmark.roofline.cli.time_stages_apart", stage_times_module.time_stages)
    code, printed, error = bench(tiny_bundle, "--backends", "openvino", "--threads", "1")
    assert "openvino: not measured: not today" in printed
    assert_one_error((code, "", error), "none of the backends could run here")
