"""Stage: the engine loop over the real CUDA runtime, with stand-in engines whose results show whatever went wrong.

The recording GPU of the tests proves the order of calls; here the data proves that the order is enough.
"""

from dataclasses import dataclass
from typing import Any

from step_runtime.backends.base import Loop
from step_runtime.tracing.tracer import Recorder

from gpu_check.cuda_machine import open_machine
from gpu_check.loop_runs import RESULTS, LoopBench, alternating, detect, detect_in_halves, differences, make_clips
from gpu_check.span_checks import busy_share, clock_gap_us, hidden_share, span_problems
from gpu_check.spin_arithmetic import Words
from gpu_check.spin_bundle import make_bundle
from gpu_check.spin_expected import expected
from gpu_check.spin_kernels import compile_kernels
from gpu_check.stage import Report, StageOptions, run_stage
from step.bundles.graph_spec import BACKBONE, CONTEXT, DETECT, FEATURES, step_graph_name
from step.config import StepConfig
from step.errors import StepError

_LOOPS: tuple[Loop, ...] = ("fused", "steps")
_TABLE = "Engine loop with stand-in engines"
_LEAST_S = 10.0  # for what is still to come


@dataclass(frozen=True)
class _Sizes:
    """Sets the sizes of the work, by device.

    Attributes:
        config: of the model.
        clips: in all.
        halved_clips: those of them that go through the loop in two halves.
        traced_clips: those of them that are traced.
        scratch_words: of the smallest engine.
        most_cycles: of a pause in a kernel.
    """

    config: StepConfig
    clips: int
    halved_clips: int
    traced_clips: int
    scratch_words: int
    most_cycles: int


_SIZES = {
    "cuda": _Sizes(StepConfig(width=0.125, image_size_px=112, fc_dim=16), 500, 80, 100, 1 << 18, 60_000),
    "none": _Sizes(StepConfig(width=0.06, image_size_px=48, fc_dim=8), 24, 7, 7, 1 << 10, 0),
}


def measure(report: Report, options: StageOptions) -> None:
    """Runs both loops with and without CUDA graphs, whole, in halves and traced.

    Raises:
        StepError: no GPU, or one whose driver does not take the kernels.
    """
    sizes = _SIZES[options.device]
    report.figure("PTX of the kernels", len(compile_kernels()), "bytes")
    machine = open_machine(options.device)
    folder = options.work / "spin-bundle"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = make_bundle(folder, sizes.config, scratch_words=sizes.scratch_words)
    bench = LoopBench(machine, folder, manifest, sizes.most_cycles)
    clips = make_clips(manifest, sizes.clips)
    report.figure("clips", sizes.clips, "clips")
    report.figure("bytes of a clip", clips[0].nbytes, "bytes")
    for loop in _LOOPS:
        wanted = expected(manifest, loop, clips, RESULTS)
        results = {}
        for cuda_graph in (False, True):
            name = _name(loop, cuda_graph)
            with _Guard(report, name):
                results[cuda_graph] = _whole(report, bench, loop, cuda_graph, clips, wanted)
            with _Guard(report, f"{name}, traced"):
                _traced(report, bench, loop, cuda_graph, clips[: sizes.traced_clips])
        if len(results) == 2:
            for text in differences(results[True], results[False]):
                report.problem(f"{loop}: with a CUDA graph, other than without: {text}")
        if options.left_s < _LEAST_S:
            report.problem(f"left out after {loop}: no time")
            return
    some = clips[: sizes.halved_clips]
    wanted = expected(manifest, "steps", some, (FEATURES, CONTEXT, *RESULTS))
    for cuda_graph in (False, True):
        name = f"{_name('steps', cuda_graph)}, in halves"
        with _Guard(report, name):
            _halves(report, bench, cuda_graph, some, wanted)
    for text in machine.counted.not_given_back():
        report.problem(f"not given back: {text}")


class _Guard:
    """Makes what fails in the block a problem of the stage, which goes on."""

    def __init__(self, report: Report, name: str) -> None:
        self._report = report
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> bool:
        # All but the first are the bindings' words for what they do not take.
        if not isinstance(error, StepError | RuntimeError | TypeError | OverflowError):
            return False
        self._report.problem(f"{self._name}: {error}")
        return True


def _whole(
    report: Report, bench: LoopBench, loop: Loop, cuda_graph: bool, clips: Any, wanted: dict[str, Words]
) -> dict[str, Words]:
    """Runs all clips, with two calls under way."""
    counted, calls, name = bench.machine.counted, alternating(len(clips)), _name(loop, cuda_graph)
    backend = bench.open(loop, cuda_graph=cuda_graph)
    try:
        before, waits = counted.calls.copy(), counted.host_waits
        found, seconds = detect(backend, clips, calls)
        for text in differences(found, wanted):
            report.problem(f"{name}: {text}")
        report.check("without a CUDA graph" not in backend.device, f"{name}: {backend.device}")
        captures = counted.calls["end_capture"] - before["end_capture"]
        report.figure(name, round(len(clips) / seconds, 1), "clips/s", table=_TABLE)
        report.figure(name, captures, "captures", table=_TABLE)
        wanted_captures = len({call.clips for call in calls}) if cuda_graph else 0
        report.check(captures == wanted_captures, f"{name}: {captures} captures; {wanted_captures} are enough")
        report.figure(
            name, round((counted.host_waits - waits) / len(calls), 3), "waits of the host a call", table=_TABLE
        )
        # What nobody asks for may be overwritten, and nothing else.
        for _ in range(3):
            backend.submit(clips[:1])
        again, _ = detect(backend, clips[1:4], alternating(3))
        for text in differences(again, {key: words[1:4] for key, words in wanted.items()}):
            report.problem(f"{name}, after calls whose results nobody took: {text}")
    finally:
        backend.close()
    return found


def _traced(report: Report, bench: LoopBench, loop: Loop, cuda_graph: bool, clips: Any) -> None:
    """Checks the spans that `--trace` would write."""
    recorder, name, calls = Recorder(), _name(loop, cuda_graph), alternating(len(clips))
    backend = bench.open(loop, cuda_graph=cuda_graph, tracer=recorder)
    try:
        detect(backend, clips, calls)
    finally:
        backend.close()
    engines = [BACKBONE, *map(step_graph_name, range(bench.manifest.num_steps)), DETECT]
    stages = [loop] if loop == "fused" else [f"{BACKBONE} to {DETECT}"] if cuda_graph else engines
    for text in span_problems(recorder.spans, calls=len(calls), stages=stages):
        report.problem(f"{name}, traced: {text}")
    report.figure(name, round(100 * hidden_share(recorder.spans), 1), "uploads behind computing %", table=_TABLE)
    report.figure(name, round(100 * busy_share(recorder.spans), 1), "compute stream busy %", table=_TABLE)
    report.figure(name, round(clock_gap_us(recorder.spans), 1), "from download to host us", table=_TABLE)


def _halves(report: Report, bench: LoopBench, cuda_graph: bool, clips: Any, wanted: dict[str, Words]) -> None:
    """Runs with features to the host and back."""
    name = f"{_name('steps', cuda_graph)}, in halves"
    backend = bench.open("steps", cuda_graph=cuda_graph)
    try:
        found = detect_in_halves(backend, clips, alternating(len(clips)))
        whole, _ = detect(backend, clips, alternating(len(clips)))
    finally:
        backend.close()
    for text in differences(found, wanted):
        report.problem(f"{name}: {text}")
    for text in differences(whole, {key: wanted[key] for key in RESULTS}):
        report.problem(f"{name}, whole again after: {text}")


def _name(loop: Loop, cuda_graph: bool) -> str:
    return f"{loop}, {'CUDA graph' if cuda_graph else 'eager'}"


if __name__ == "__main__":
    run_stage("engine_loop", measure)
