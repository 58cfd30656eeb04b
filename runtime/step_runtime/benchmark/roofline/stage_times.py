"""Time of each stage of a clip, run alone and in rounds: A B C A B C ..., on one library after the other."""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from step.bundles.graph_spec import BACKBONE, CONTEXT, FUSED, INPUT_TUBES_PX, Arrays
from step.bundles.manifest import Manifest
from step.bundles.onnx_files import load_onnx
from step.bundles.step_loop import first_tubes, run_steps
from step.config import StepConfig
from step.errors import StepError
from step.parent import end_with_parent
from step_runtime.benchmark.roofline.product_graph import product_graph
from step_runtime.benchmark.roofline.stage_calls import Call, load_calls, onnxruntime_call
from step_runtime.benchmark.roofline.stages import load_stages
from step_runtime.benchmark.roofline.work import check_batch
from step_runtime.benchmark.rounds import MIN_RUNS, MIN_S
from step_runtime.benchmark.statistics import percentile

if TYPE_CHECKING:
    import onnx

STAGE_BACKENDS = ("onnxruntime", "openvino")
"""Libraries that stages are timed on, all on the CPU."""

PRODUCTS = {f"product {size}": size for size in (512, 1024, 2048)}
"""Timed in rounds with the stages: matrix products of the same library, which show how fast the machine is then."""

_MOST_CALLS_A_ROUND = 200
_MANY = 1000  # calls that are enough however short they are
_REST_S = 0.05  # threads of the library before go on spinning for a while


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """The times of one library.

    Attributes:
        backend: which.
        times_s: of every call, by stage, and of the `PRODUCTS`.
        problem: why there are none; None where there are.
    """

    backend: str
    times_s: dict[str, list[float]] = field(default_factory=dict)
    problem: str | None = None

    def median_s(self, stage: str) -> float:
        """The median of a call, by trtexec's percentile rule."""
        return percentile(self.times_s[stage], 50)

    @property
    def product_per_s(self) -> float | None:
        """Multiply-adds a second of the best size's median product; None where none was timed."""
        timed = [size**3 / self.median_s(name) for name, size in PRODUCTS.items() if name in self.times_s]
        return max(timed, default=None)


def time_stages_apart(
    folder: Path, manifest: Manifest, *, backends: Sequence[str], threads: int, batch: int, min_runs: int, min_s: float
) -> list[StageTimes]:
    """`time_stages` in a process of its own: a library that crashes ends that one, and none meets others' threads.

    Raises:
        StepError: see `time_stages`, or the process was ended.
    """
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        timing = pool.submit(
            time_stages,
            folder,
            manifest,
            backends=backends,
            threads=threads,
            batch=batch,
            min_runs=min_runs,
            min_s=min_s,
        )
        try:
            return timing.result()
        except BrokenProcessPool as error:
            raise StepError(
                "a library crashed while the stages were timed; give one of --backends at a time"
            ) from error


def _tell_nobody(_round: int, _what: str) -> None:
    """No progress."""


def time_stages(
    folder: Path,
    manifest: Manifest,
    *,
    backends: Sequence[str],
    threads: int,
    batch: int = 1,
    min_runs: int = MIN_RUNS,
    min_s: float = MIN_S,
    progress: Callable[[int, str], None] = _tell_nobody,
) -> list[StageTimes]:
    """Times the stages of a bundle, and its fused graph, on noise, and matrix products beside them.

    Args:
        folder: the bundle.
        manifest: what `read_bundle` returned for it.
        backends: of `STAGE_BACKENDS`.
        threads: CPU threads.
        batch: clips of a call.
        min_runs: calls of each, after the first.
        min_s: seconds of each, or a thousand calls.
        progress: is called with the round and what runs.

    Raises:
        StepError: no such backend, onnx is not installed, no step-loop graphs, or another batch. A library that is not
            there, or cannot load a stage, is a `StageTimes` that says why.
    """
    unknown = [name for name in backends if name not in STAGE_BACKENDS]
    if unknown:
        raise StepError(f"--backends has {unknown[0]!r}; give some of {', '.join(STAGE_BACKENDS)}")
    check_batch(folder, manifest, batch)
    models = load_stages(folder, manifest)
    progress(0, "computing what each stage reads")
    inputs = stage_inputs(folder, manifest, models, batch=batch)
    for name, size in PRODUCTS.items():
        models[name], inputs[name] = product_graph(size)
    calls: dict[str, dict[str, Call]] = {}
    problems: dict[str, str] = {}
    for backend in dict.fromkeys(backends):
        progress(0, f"loading {backend}")
        try:
            calls[backend] = load_calls(backend, models, inputs, threads)
        except StepError as error:
            problems[backend] = str(error)
    times_s = _in_rounds(calls, min_runs=min_runs, min_s=min_s, progress=progress)
    return [
        StageTimes(backend=backend, times_s=times_s.get(backend, {}), problem=problems.get(backend))
        for backend in dict.fromkeys(backends)
    ]


def stage_inputs(
    folder: Path, manifest: Manifest, models: "Mapping[str, onnx.ModelProto]", *, batch: int
) -> dict[str, Arrays]:
    """What each stage reads: results of the stages before it, on noise, computed with ONNX Runtime."""
    config = manifest.config
    frames = np.random.RandomState(0).randint(0, 256, _frames_shape(config, batch), np.uint8)
    values: Arrays = {"frames": frames}
    whole = load_onnx(folder / manifest.graphs[BACKBONE].file)
    cuts = list(models[CONTEXT].graph.input) if CONTEXT in models else []
    whole.graph.output.extend(cuts)
    inputs = {FUSED: values.copy(), BACKBONE: values.copy()}
    values |= _run_once(whole, values)
    inputs[CONTEXT] = {value.name: values[value.name] for value in cuts}
    values[INPUT_TUBES_PX] = first_tubes(config, batch=batch)

    def run(name: str) -> Arrays:
        inputs[name] = {value.name: values[value.name] for value in models[name].graph.input}
        return _run_once(models[name], inputs[name])

    run_steps(run, values, num_steps=manifest.num_steps)
    return {name: inputs[name] for name in models}


def _in_rounds(
    calls: Mapping[str, Mapping[str, Call]], *, min_runs: int, min_s: float, progress: Callable[[int, str], None]
) -> dict[str, dict[str, list[float]]]:
    """Rounds of all stages of all libraries until the last has enough."""
    times_s: dict[str, dict[str, list[float]]] = {
        backend: {stage: [] for stage in stages} for backend, stages in calls.items()
    }
    repeats: dict[tuple[str, str], int] = {}
    for backend, stages in calls.items():
        for stage, call in stages.items():
            call()  # what a library does on its first call is no part of the others
            wanted = int(min_s / min_runs / max(_timed(call), 1e-6))
            repeats[backend, stage] = max(1, min(_MOST_CALLS_A_ROUND, wanted))
    done = 0
    while any(_wants_more(taken, min_runs, min_s) for stages in times_s.values() for taken in stages.values()):
        done += 1
        for backend, stages in calls.items():
            time.sleep(_REST_S)
            for stage, call in stages.items():
                progress(done, f"{backend}, {stage}")
                times_s[backend][stage] += [_timed(call) for _ in range(repeats[backend, stage])]
    return times_s


def _wants_more(taken: list[float], min_runs: int, min_s: float) -> bool:
    return len(taken) < min_runs or (sum(taken) < min_s and len(taken) < _MANY)


def _timed(call: Call) -> float:
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


def _run_once(model: "onnx.ModelProto", inputs: Arrays) -> Arrays:
    return onnxruntime_call("a stage", model, inputs, None)()


def _frames_shape(config: StepConfig, batch: int) -> tuple[int, ...]:
    return batch, config.clip_frames, config.image_size_px, config.image_size_px, 3
