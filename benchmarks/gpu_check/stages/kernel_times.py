"""Stage: the kernels' times against their traffic model, the backbone's convolutions against the card's ceilings."""

import contextlib
import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import host_kernels
import torch
from plugin_kernels import Sizes, variants
from step_runtime.benchmark.roofline.peaks import Peaks, measure_cuda_peaks

from gpu_check import kernel_launches
from gpu_check.convolutions import backbone_convolutions, convolve
from gpu_check.stage import Report, StageOptions, run_stage
from gpu_check.timing import Timer, captured, need_cuda
from step.errors import StepError

_PEAK_SECONDS = 0.2
_RUNS, _CONVOLUTION_RUNS = 50, 20
_NCU_S = 40.0
_NEEDS_S = 5.0  # a part that cannot be done in this time is not begun
_SMALL = Sizes(tubes=3, classes=5, channels=16, cells=5)
_METRICS = ("gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum")


def measure(report: Report, options: StageOptions) -> None:
    """Measures ceilings, kernels, convolutions, hardware counters: in this order, as far as the time goes.

    Raises:
        StepError: the ceilings cannot be measured.
    """
    need_cuda(options.device)
    peaks = _ceilings(report, options)
    is_cuda = options.device == "cuda"
    with contextlib.nullcontext() if is_cuda else host_kernels.in_place_of_the_gpu():
        _kernels(report, options, peaks)
    _convolutions(report, options, peaks)
    _counters(report, options)


def _ceilings(report: Report, options: StageOptions) -> Peaks | None:
    if options.device == "none":
        return None
    peaks = measure_cuda_peaks(seconds=_PEAK_SECONDS)
    for precision, rate in peaks.multiply_adds_per_s.items():
        report.figure(precision, 2 * rate / 1e12, "TFLOP/s", table="ceilings: best matrix product, best copy")
    report.figure(
        "copy, read and written", peaks.bytes_per_s / 1e9, "GB/s", table="ceilings: best matrix product, best copy"
    )
    return peaks


def _kernels(report: Report, options: StageOptions, peaks: Peaks | None) -> None:
    is_cuda = options.device == "cuda"
    timer = Timer(options.device, flush=True)
    for variant in variants(Sizes() if is_cuda else _SMALL, "cuda" if is_cuda else "cpu"):
        name = f"{variant.operator}, {variant.configuration}"
        try:
            times = timer.time(captured(variant.run, options.device), runs=_RUNS if is_cuda else 2)
        except RuntimeError as error:  # PyTorch's, and CUDA's through it
            report.problem(f"{name}: {error}")
            continue
        table = "kernels, cold caches, launched by a CUDA graph"
        report.figure(name, 1e3 * times.median_ms, "median us", table=table)
        report.figure(name, variant.bytes / times.median_ms / 1e6, "model's GB/s", table=table)
        if peaks is not None:
            report.figure(
                name, 1e3 * times.median_ms / (1e6 * variant.bytes / peaks.bytes_per_s), "of the floor", table=table
            )


def _convolutions(report: Report, options: StageOptions, peaks: Peaks | None) -> None:
    """Times contiguous and channels last, with cuDNN's fastest algorithm of each."""
    is_cuda = options.device == "cuda"
    size = {"frames": 36, "image_size_px": 400} if is_cuda else {"frames": 8, "image_size_px": 32, "width": 0.06}
    torch.backends.cudnn.benchmark = True
    timer = Timer(options.device, flush=True)
    table = "the backbone's convolutions, fp16"
    total_ms: dict[str, float] = {}
    for shape in backbone_convolutions(**size):
        if options.left_s < _NEEDS_S:
            report.figure(shape.name, "left out: no time", "layers", table=table)
            continue
        report.figure(shape.name, shape.count, "layers", table=table)
        for layout in ("contiguous", "channels last"):
            work = convolve(
                shape,
                dtype=torch.float16,
                channels_last=layout == "channels last",
                device="cuda" if is_cuda else "cpu",
            )
            try:
                median_ms = timer.time(work, runs=_CONVOLUTION_RUNS if is_cuda else 1).median_ms
            except RuntimeError as error:
                report.problem(f"{shape.name}, {layout}: {error}")
                continue
            report.figure(shape.name, 1e3 * median_ms, f"{layout} us", table=table)
            total_ms[layout] = total_ms.get(layout, 0.0) + shape.count * median_ms
        if peaks is not None:
            floor_s = max(shape.multiply_adds / peaks.rate("fp16"), 2 * shape.values / peaks.bytes_per_s)
            report.figure(shape.name, 1e6 * floor_s, "floor us", table=table)
            total_ms["floor"] = total_ms.get("floor", 0.0) + 1e3 * shape.count * floor_s
    for column, value in total_ms.items():
        report.figure("all layers that were timed", 1e3 * value, f"{column} us", table=table)


def _counters(report: Report, options: StageOptions) -> None:
    """Reads what the hardware counted in one run of each variant with empty caches, where a user may ask."""
    ncu, table = shutil.which("ncu"), "hardware counters (ncu), one run each, empty caches"
    if ncu is None or options.left_s < _NEEDS_S:
        report.figure("ncu", "not on the PATH" if ncu is None else "left out: no time", "found", table=table)
        return
    # The clocks are left as they are: the machine may be shared.
    command = [ncu, "--clock-control", "none", "--csv", "--print-units", "base", "--metrics", ",".join(_METRICS)]
    command += ["--kernel-name", "regex:step_", sys.executable, str(Path(kernel_launches.__file__))]
    limit_s = min(_NCU_S, options.left_s - _NEEDS_S / 2)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        report.figure("ncu", f"cut after {limit_s:.0f} s", "found", table=table)
        return
    try:
        rows = read_counters(done.stdout)
    except StepError as error:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "==ERROR==" in line]
        report.figure("ncu", f"{error}: {(said or ['it gave no reason'])[0]}", "found", table=table)
        return
    for (name, model_bytes), counted in zip(kernel_launches.cases(), rows, strict=False):
        moved = counted["dram__bytes_read.sum"] + counted["dram__bytes_write.sum"]
        report.figure(name, counted["gpu__time_duration.sum"] / 1e3, "us", table=table)
        report.figure(name, moved / 1e6, "MB counted", table=table)
        report.figure(name, model_bytes / 1e6, "MB by the model", table=table)


def read_counters(text: str) -> list[dict[str, float]]:
    """Reads the metrics of every launch, in order, from ncu's CSV.

    Args:
        text: standard output of `ncu --csv`; the program's own lines and ncu's messages stand before the header.

    Raises:
        StepError: there is no such table in it.
    """
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise StepError("ncu counted nothing")
    launches: dict[int, dict[str, float]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[start:]))):
        launch = launches.setdefault(int(row["ID"]), {})
        launch[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
    return [launches[index] for index in sorted(launches)]


if __name__ == "__main__":
    run_stage("kernel_times", measure)
