"""Stage: one detector on a GPU that several threads call; each call has to give its own clip's detections.

Shape legend: B clips, M detections.
"""

import threading
from collections.abc import Callable

import numpy as np
from step_runtime import Detector
from step_runtime.backends.base import Array, Loop

from gpu_check.models import find_bundle, find_checkpoint, random_clips
from gpu_check.stage import Device, Report, StageOptions, run_stage
from gpu_check.timing import need_cuda
from step.bundles.graph_spec import Precision
from step.detections import Detections
from step.errors import StepError

_THREADS = 8
_CALLS: dict[Device, int] = {"cuda": 60, "none": 3}
_TELLS_APART_PX = 1.0  # the clips' tubes differ by more, or the stage fails
_BUNDLES: tuple[tuple[Precision, Loop], ...] = (("fp32", "fused"), ("fp32", "steps"), ("fp16", "steps"))


def measure(report: Report, options: StageOptions) -> None:
    """Shares the packaged model in ONNX Runtime and PyTorch among 8 threads of 60 calls each."""
    need_cuda(options.device)
    where = "cuda" if options.device == "cuda" else "cpu"
    for precision, loop in _BUNDLES:
        bundle = find_bundle("toy", precision, options.work, options.device)
        with Detector.open(bundle, "onnxruntime", loop=loop, device=where) as detector:
            _share(report, f"ONNX Runtime {precision} {loop}", detector, _CALLS[options.device])
    with Detector.open(find_checkpoint("toy", options.work, options.device), device=where) as detector:
        _share(report, "PyTorch fp32", detector, _CALLS[options.device])


def _share(report: Report, name: str, detector: Detector, calls: int) -> None:
    """Counts the calls whose tubes are not those of their clip, and the detections that are not the same bits."""
    clips = random_clips(detector.config, 3, seed=3)
    expected = [detector.detect(clips[index : index + 1]) for index in range(len(clips))]
    distance_px = min(_apart_px(expected[one], expected[two]) for one, two in ((0, 1), (0, 2), (1, 2)))
    report.check(
        distance_px > _TELLS_APART_PX, f"{name}: two clips' tubes are {distance_px:.3g} px apart: too few to tell"
    )
    bits, nearest = [], []
    failures: list[str] = []

    def work(number: int) -> None:
        for call in range(calls):
            index = (number + call) % len(clips)
            found = detector.detect(clips[index : index + 1])
            apart_px = [_apart_px(found, other) for other in expected]
            nearest.append(int(np.argmin(apart_px)) == index and apart_px[index] < distance_px / 2)
            bits.append(all(np.array_equal(one, two) for one, two in zip(found, expected[index], strict=True)))

    threads = [threading.Thread(target=_told, args=[failures, work, number]) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.figure(name, len(bits), "calls")
    report.figure(name, nearest.count(False), "another clip's")
    report.figure(name, bits.count(False), "not the bits of one thread")
    report.figure(name, distance_px, "clips px apart")
    for failure in failures:
        report.problem(f"{name}: {failure}")
    report.check(all(nearest), f"{name}: {nearest.count(False)} of {len(nearest)} calls gave another clip's tubes")
    report.check(len(bits) == _THREADS * calls, f"{name}: {len(bits)} of {_THREADS * calls} calls ended")


def _told(failures: list[str], work: Callable[[int], None], number: int) -> None:
    try:
        work(number)
    except (StepError, RuntimeError) as error:
        failures.append(str(error))


def _apart_px(found: Detections[Array], expected: Detections[Array]) -> float:
    return float(np.abs(np.subtract(found.tubes_px, expected.tubes_px)).max())


if __name__ == "__main__":
    run_stage("sharing", measure)
