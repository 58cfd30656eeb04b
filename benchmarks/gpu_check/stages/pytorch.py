"""Stage: PyTorch at full size, the baselines that exported graphs and engines are compared with.

Every call takes one clip's frames from the host and gives its detections back there.
"""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from step_runtime.backends.torch_kernels import use_kernels

from gpu_check.models import find_checkpoint, random_clips
from gpu_check.stage import Device, Report, StageOptions, run_stage
from gpu_check.timing import Timer, captured, need_cuda
from step import StepDetector, load_checkpoint
from step.detections import Detections
from step.errors import StepError
from step.parity.tolerances import TOLERANCES, detections_apart

_RUNS: dict[Device, int] = {"cuda": 20, "none": 2}
_WARM_UP_RUNS = 3
_BATCHES: dict[Device, tuple[int, ...]] = {"cuda": (4, 8), "none": (2,)}
_NEEDS_S, _COMPILE_NEEDS_S = 4.0, 45.0
_TABLE = "full size, one clip a call"
_SCORE_THRESHOLD, _NMS_IOU = 0.01, 0.4  # the defaults of `StepDetector.detect`

Networks = Literal["fp32", "tf32", "autocast fp16", "autocast bf16", "fp16"]
Call = Callable[[], Detections[NDArray[np.generic]]]


@dataclass(frozen=True)
class Mode:
    """Describes one configuration of the detector.

    Attributes:
        name: as docs/benchmarks.md has it, where it has it.
        networks: their precision: "fp32" without TF32; "fp16" casts the weights once, as the export does.
        channels_last: whether the backbone's weights, and so its features, lie channels last.
        how: eager, recorded as a CUDA graph, or compiled.
        search: whether cuDNN tries its algorithms for every convolution, instead of guessing.
    """

    name: str
    networks: Networks
    channels_last: bool = False
    how: Literal["eager", "graph", "compile"] = "eager"
    search: bool = False


_EAGER = (
    Mode("torch fp32", "fp32"),
    Mode("torch fp32 TF32", "tf32"),
    Mode("torch-fp16", "autocast fp16"),
    Mode("torch-bf16", "autocast bf16"),
    Mode("torch fp16 weights", "fp16"),
    Mode("torch fp16 weights, channels last", "fp16", channels_last=True),
)
_RECORDED = (
    Mode("torch fp32 TF32, CUDA graph", "tf32", how="graph"),
    Mode("torch fp16 weights, CUDA graph", "fp16", how="graph"),
    Mode("torch fp16 weights, channels last, CUDA graph", "fp16", channels_last=True, how="graph"),
    Mode("torch fp16 weights, channels last, cuDNN's search, CUDA graph", "fp16", True, "graph", search=True),
)
_COMPILED = (Mode("torch-compile fp16 weights", "fp16", how="compile"), Mode("torch-compile", "tf32", how="compile"))


def measure(report: Report, options: StageOptions) -> None:
    """Times modes without the two kernels, with them, as a CUDA graph, of several clips, compiled: in this order.

    Raises:
        StepError: the model cannot be made.
    """
    need_cuda(options.device)
    bench = _Bench(report, options, find_checkpoint("full", options.work, options.device))
    for mode in _EAGER:
        bench.run(mode, "matrix products")
    if options.device == "cuda":
        problem = use_kernels("cuda")
        report.check(problem is None, f"the kernels cannot be used: {problem}")
    for mode in (*_EAGER, *_RECORDED):
        bench.run(mode, "kernels")
    _parts(report, options, bench.checkpoint)
    for batch in _BATCHES[options.device]:
        bench.run(_EAGER[-1], "kernels", batch=batch)
    for mode in _COMPILED:
        if options.device == "cuda" and options.left_s > _COMPILE_NEEDS_S:
            bench.run(mode, "kernels")
        else:
            report.figure(f"{mode.name}, kernels", "left out: no time", "median ms", table=_TABLE)


class _Bench:
    """Times modes, and compares what each finds with the first."""

    def __init__(self, report: Report, options: StageOptions, checkpoint: Path) -> None:
        self._report = report
        self._options = options
        self._device = "cuda" if options.device == "cuda" else "cpu"
        self.checkpoint = checkpoint
        self._expected: Detections[NDArray[np.generic]] | None = None

    def run(self, mode: Mode, operators: str, *, batch: int = 1) -> None:
        """Adds a row; what PyTorch refuses is a problem, and the next row goes on."""
        name = f"{mode.name}, {operators}{f', batch {batch}' if batch > 1 else ''}"
        if self._options.left_s < _NEEDS_S:
            self._report.figure(name, "left out: no time", "median ms", table=_TABLE)
            return
        is_cuda = self._device == "cuda"
        torch.backends.cudnn.benchmark = mode.search
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = mode.networks != "fp32"
        try:
            if is_cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            call = self._call(mode, batch)
            start_s = time.perf_counter()
            found = call()
            first_s = time.perf_counter() - start_s
            times_ms = _times_ms(call, _RUNS[self._options.device])
        except (RuntimeError, StepError) as error:  # PyTorch's, out of memory among them
            self._report.problem(f"{name}: {str(error).splitlines()[0]}")
            return
        median_ms = statistics.median(times_ms)
        self._report.figure(name, median_ms, "median ms", table=_TABLE)
        self._report.figure(name, float(np.percentile(times_ms, 95)), "p95 ms", table=_TABLE)
        self._report.figure(name, 1e3 * batch / median_ms, "clips/s", table=_TABLE)
        self._report.figure(name, first_s, "first call s", table=_TABLE)
        if is_cuda:
            self._report.figure(name, torch.cuda.max_memory_allocated() / 1e6, "peak MB", table=_TABLE)
        self._compare(name, found)

    def _call(self, mode: Mode, batch: int) -> Call:
        detector = _detector(self.checkpoint, mode).to(self._device)
        frames = torch.from_numpy(random_clips(detector.config, batch))
        if self._device == "cuda":
            frames = frames.pin_memory()
        dtypes = {"autocast fp16": torch.float16, "autocast bf16": torch.bfloat16}
        on_device = frames.to(self._device)
        kept: list[Detections[torch.Tensor]] = []

        def detect() -> None:
            dtype = dtypes.get(mode.networks)
            with torch.autocast(self._device, dtype=dtype) if dtype else contextlib.nullcontext():
                kept[:] = [detector.detect(on_device)]

        detect()
        if mode.how == "compile":
            detector.backbone.compile()
            for head in detector.heads:
                head.compile()
        work = captured(detect, self._options.device) if mode.how == "graph" else detect

        def call() -> Detections[NDArray[np.generic]]:
            on_device.copy_(frames, non_blocking=True)
            work()
            return Detections(*(rows.cpu().numpy() for rows in kept[0]))

        return call

    def _compare(self, name: str, found: Detections[NDArray[np.generic]]) -> None:
        """Compares with the first mode's, float32 without TF32; all others are held to half's tolerance."""
        if self._expected is None:
            self._expected = found
            return
        expected, tolerance = self._expected, TOLERANCES["fp16"]
        boxes_px = float(np.abs(np.subtract(found.tubes_px[0], expected.tubes_px[0])).max())
        names = ("boxes", "scores", "labels", "tube_indices")
        apart = detections_apart(
            {each: getattr(found, each)[0] for each in names},
            {each: getattr(expected, each)[0] for each in names},
            score_tolerance=tolerance.scores,
            score_threshold=_SCORE_THRESHOLD,
            nms_iou=_NMS_IOU,
        )
        self._report.figure(name, boxes_px, "tubes px apart", table=_TABLE)
        self._report.figure(name, 100 * apart, "detections apart %", table=_TABLE)


def _parts(report: Report, options: StageOptions, checkpoint: Path) -> None:
    """Measures where a clip's time goes: each part by itself on the device, fp16, channels last, with the kernels."""
    device = "cuda" if options.device == "cuda" else "cpu"
    mode = Mode("", "fp16", channels_last=True)
    detector = _detector(checkpoint, mode).to(device)
    timer, runs = Timer(options.device), _RUNS[options.device]
    frames = torch.from_numpy(random_clips(detector.config, 1)).to(device)

    def add(name: str, work: Callable[[], object]) -> None:
        report.figure(name, timer.time(work, runs=runs).median_ms, "median ms", table="parts of a clip, fp16 weights")

    with torch.inference_mode():
        clip = detector.extract(frames)
        volume = detector.run_backbone(frames)
        add("backbone", lambda: detector.run_backbone(frames))
        if detector.context is not None:
            add("context", functools.partial(detector.context, volume))
        tubes_px = detector.initial_tubes(1)
        for step in range(detector.config.num_steps):
            output = detector.run_step(clip, tubes_px, step=step)
            add(f"step {step + 1}", functools.partial(detector.run_step, clip, tubes_px, step=step))
            if step + 1 < detector.config.num_steps:
                tubes_px = detector.next_tubes(output, step=step)
        select = functools.partial(detector.select, score_threshold=_SCORE_THRESHOLD, nms_iou=_NMS_IOU)
        add("detections", functools.partial(select, output, max_detections=300))


def _detector(checkpoint: Path, mode: Mode) -> StepDetector:
    detector = load_checkpoint(checkpoint)
    if mode.networks == "fp16":
        detector.half_networks()
    if mode.channels_last:
        # PyTorch's stub does not know that modules take this layout too.
        detector.backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return detector


def _times_ms(call: Call, runs: int) -> list[float]:
    """Times each call until its results are on the host."""
    for _ in range(_WARM_UP_RUNS):
        call()
    times_ms = []
    for _ in range(runs):
        start_s = time.perf_counter()
        call()
        times_ms.append(1e3 * (time.perf_counter() - start_s))
    return times_ms


if __name__ == "__main__":
    run_stage("pytorch", measure)
