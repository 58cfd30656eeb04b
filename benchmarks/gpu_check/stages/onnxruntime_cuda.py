"""Stage: ONNX Runtime's CUDA provider on the exported graphs: parity with its CPU provider, mAP parity, times.

Shape legend: B clips, M detections.
"""

import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from step_runtime.backends.base import Array, Loop
from step_runtime.backends.onnxruntime import OnnxRuntimeBackend, open_session, session_options
from step_runtime.evaluation.map_parity import DEFAULT_TOLERANCES, ParityConfiguration, compare_map

from gpu_check.models import find_bundle, find_checkpoint, find_toy_data, random_clips
from gpu_check.stage import Device, Report, StageOptions, run_stage
from gpu_check.timing import need_cuda
from step.bundles.graph_spec import FUSED, Precision
from step.bundles.manifest import read_bundle
from step.data.dataset_folder import DatasetFolder
from step.detections import Detections
from step.errors import StepError
from step.parity.tolerances import TOLERANCES, detections_apart

_RUNS: dict[Device, int] = {"cuda": 30, "none": 2}
_WARM_UP_RUNS = 3
_SCORE_THRESHOLD, _NMS_IOU = 0.01, 0.4  # the export's defaults
_NEEDS_S = 12.0  # what cannot be done in this time is not begun: the first call tries cuDNN's algorithms
_MAP_NEEDS_S = 40.0
# The most telling first; (precision, loop, TF32, clips a call).
_CONFIGURATIONS: tuple[tuple[Precision, Loop, bool, int], ...] = (
    ("fp16", "fused", True, 1),
    ("fp32", "fused", False, 1),
    ("fp32", "fused", True, 1),
    ("fp16", "steps", True, 1),
    ("fp32", "steps", False, 1),
    ("fp16", "fused", True, 4),
    ("fp32", "steps", True, 1),
)


def measure(report: Report, options: StageOptions) -> None:
    """Times every configuration of the full-size model that there is time for, with mAP parity on toy data in between.

    Raises:
        StepError: the provider cannot be used; the library's own reason is in the message.
    """
    need_cuda(options.device)
    report.figure("ONNX Runtime", ort.__version__, "version", table="library")
    bundles: dict[Precision, Path] = {
        precision: find_bundle("full", precision, options.work, options.device) for precision in ("fp32", "fp16")
    }
    config = read_bundle(bundles["fp32"]).config
    clips = random_clips(config, 4)
    start_s = time.perf_counter()
    with _open(bundles["fp32"], "fused", device="cpu", tf32=False) as backend:
        expected = [backend.submit(clips[index : index + 1]).result() for index in range(2)]
    report.figure("reference: 2 clips on the CPU in fp32", time.perf_counter() - start_s, "seconds", table="library")
    where = "cuda" if options.device == "cuda" else "cpu"
    _placement(report, bundles["fp16"], where, clips[:1])
    for number, configuration in enumerate(_CONFIGURATIONS):
        if number == 2:
            _map_parity(report, options)
        precision, loop, tf32, batch = configuration
        name = f"{precision} {loop}{' TF32' if tf32 and precision == 'fp32' else ''}, batch {batch}"
        if options.left_s < _NEEDS_S:
            report.figure(name, "left out: no time", "median ms", table="full size")
            continue
        try:
            with _open(bundles[precision], loop, device=where, tf32=tf32) as backend:
                _time(report, name, backend, clips[:batch], _RUNS[options.device])
                found = [backend.submit(clips[index : index + 1]).result() for index in range(len(expected))]
        except StepError as error:
            report.problem(f"{name}: {error}")
            continue
        # TF32 has as many bits as half.
        _compare(report, name, found, expected, "fp16" if tf32 else precision)


@contextlib.contextmanager
def _open(bundle: Path, loop: Loop, *, device: str, tf32: bool) -> Iterator[OnnxRuntimeBackend]:
    manifest = read_bundle(bundle)
    backend = OnnxRuntimeBackend(
        bundle, manifest, loop=loop, num_steps=manifest.num_steps, device=device, threads=None, tf32=tf32
    )
    try:
        yield backend
    finally:
        backend.close()


def _time(report: Report, name: str, backend: OnnxRuntimeBackend, clips: NDArray[np.uint8], runs: int) -> None:
    """Times calls that take frames from the host and give detections back there."""
    start_s = time.perf_counter()
    backend.submit(clips).result()
    report.figure(name, time.perf_counter() - start_s, "first call s", table="full size")
    for _ in range(_WARM_UP_RUNS):
        backend.submit(clips).result()
    times_ms = []
    for _ in range(runs):
        start_s = time.perf_counter()
        backend.submit(clips).result()
        times_ms.append(1e3 * (time.perf_counter() - start_s))
    median_ms = statistics.median(times_ms)
    report.figure(name, median_ms, "median ms", table="full size")
    report.figure(name, float(np.percentile(times_ms, 95)), "p95 ms", table="full size")
    report.figure(name, 1e3 * len(clips) / median_ms, "clips/s", table="full size")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        report.figure(name, (total - free) / 1e6, "GPU MB in use", table="full size")


def _compare(
    report: Report,
    name: str,
    found: list[Detections[Array]],
    expected: list[Detections[Array]],
    precision: Precision,
) -> None:
    """Compares with the CPU in float32: tubes, and which detections only one side has."""
    tolerance = TOLERANCES[precision]
    pairs = list(zip(found, expected, strict=True))
    boxes_px = max(float(np.abs(np.subtract(one.tubes_px, two.tubes_px)).max()) for one, two in pairs)
    names = ("boxes", "scores", "labels", "tube_indices")
    apart = max(
        detections_apart(
            {each: getattr(one, each)[0] for each in names},
            {each: getattr(two, each)[0] for each in names},
            score_tolerance=tolerance.scores,
            score_threshold=_SCORE_THRESHOLD,
            nms_iou=_NMS_IOU,
        )
        for one, two in pairs
    )
    report.figure(name, boxes_px, "tubes px apart", table="full size")
    report.figure(name, 100 * apart, "detections apart %", table="full size")
    fits = boxes_px <= tolerance.boxes_px and apart <= 1 - tolerance.rows_matched
    report.check(
        fits,
        f"{name}: tubes are {boxes_px:.3g} px apart from the CPU's (allowed {tolerance.boxes_px:g}), "
        f"{100 * apart:.2f} % of the detections differ (allowed {100 * (1 - tolerance.rows_matched):.2f} %)",
    )


def _placement(report: Report, bundle: Path, device: str, clips: NDArray[np.uint8]) -> None:
    """Counts the nodes of the fused graph that each provider runs, by the library's own profile."""
    manifest = read_bundle(bundle)
    options = session_options(None)
    options.enable_profiling = True
    options.profile_file_prefix = str(bundle.parent / f"{bundle.name}-profile")
    session = open_session(bundle / manifest.graphs[FUSED].file, options=options, device=device)
    for _ in range(2):
        session.run(None, {"frames": clips})
    profile = Path(session.end_profiling())
    nodes: dict[tuple[str, str], str] = {}
    for event in json.loads(profile.read_text()):
        if event.get("cat") == "Node" and "provider" in event.get("args", {}):
            nodes[event["name"], event["args"]["op_name"]] = event["args"]["provider"]
    profile.unlink()
    counted = Counter(nodes.values())
    for provider, count in counted.most_common():
        report.figure(provider, count, "nodes", table="who runs the fused fp16 graph")
    elsewhere = Counter(kind for (_, kind), name in nodes.items() if name == "CPUExecutionProvider")
    if device == "cuda" and elsewhere:
        kinds = ", ".join(f"{kind} {count}" for kind, count in elsewhere.most_common())
        report.figure("on the CPU", kinds, "nodes", table="who runs the fused fp16 graph")


def _map_parity(report: Report, options: StageOptions) -> None:
    """Scores the packaged model on toy data, beside PyTorch on the same device without TF32."""
    table = "mAP parity on toy data"
    if options.left_s < _MAP_NEEDS_S and options.device == "cuda":
        report.figure("ONNX Runtime", "left out: no time", "mAP", table=table)
        return
    torch.backends.cudnn.allow_tf32 = False
    where = "cuda" if options.device == "cuda" else "cpu"
    checkpoint = find_checkpoint("toy", options.work, options.device)
    configurations = [ParityConfiguration(model=checkpoint, backend="torch", loop=None, precision="fp32")]
    for precision in ("fp32", "fp16"):
        bundle = find_bundle("toy", precision, options.work, options.device)
        configurations += [
            ParityConfiguration(model=bundle, backend="onnxruntime", loop=loop, precision=precision)
            for loop in ("fused", "steps")
        ]
    manifest = read_bundle(configurations[-1].model)
    steps = list(range(1, manifest.num_steps + 1))
    data = DatasetFolder.open(find_toy_data(options.work, options.device), "val")
    for row in compare_map(configurations, data, steps=steps, thresholds=manifest.thresholds, device=where):
        if not report.check(row.problem is None, f"mAP parity, {row.configuration.name}: {row.problem}"):
            continue
        report.figure(row.configuration.name, row.mean_ap[max(row.mean_ap)], "mAP", table=table)
        report.figure(row.configuration.name, 100 * row.worst_mean, "mAP apart, points", table=table)
        report.figure(row.configuration.name, 100 * row.matched, "same detections %", table=table)
        report.figure(row.configuration.name, row.latency_ms, "ms a clip", table=table)
        report.check(
            row.passed(DEFAULT_TOLERANCES),
            f"mAP parity, {row.configuration.name}: mAP {100 * row.worst_mean:.2f} points apart from PyTorch's, "
            f"a class's AP {100 * row.worst_class:.2f}",
        )


if __name__ == "__main__":
    run_stage("onnxruntime_cuda", measure)
