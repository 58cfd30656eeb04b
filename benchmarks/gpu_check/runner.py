"""Running stages: processes with time limits; one that crashes, hangs or is cut takes nothing else with it."""

import os
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gpu_check.catalogue import Stage
from gpu_check.processes import Processes
from gpu_check.results import StageResult, Status
from gpu_check.stage import Device

_CORES_A_STAGE = 4


@dataclass(frozen=True)
class Run:
    """Describes one run of the check.

    Attributes:
        device: of every stage.
        out: folder of the stages' JSON files and logs.
        deadline_s: of `time.monotonic`, of the whole run.
    """

    device: Device
    out: Path
    deadline_s: float


def run_stages(stages: Sequence[Stage], run: Run, done: Callable[[StageResult], None]) -> list[StageResult]:
    """Runs stages: those that others wait for, then those that may run side by side, then the rest one by one.

    Args:
        stages: which.
        run: where, on what and for how long.
        done: is called with every result as it comes, from any thread.

    Returns:
        Results in the order of `stages`.

    Raises:
        KeyboardInterrupt: every stage's process has been ended.
    """
    workers = max(1, min(4, (os.cpu_count() or 1) // _CORES_A_STAGE))
    results: dict[str, StageResult] = {}
    lock, processes = threading.Lock(), Processes()

    def perform(stage: Stage) -> None:
        result = _run_stage(stage, run, processes)
        with lock:
            results[stage.name] = result
            done(result)

    together = [stage for stage in stages if not stage.alone]
    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                list(pool.map(perform, sorted(together, key=lambda stage: not stage.first)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                processes.end_all()  # the pool waits for whoever waits for them
                raise
        for stage in stages:
            if stage.alone:
                perform(stage)
    finally:
        processes.end_all()
    return [results[stage.name] for stage in stages]


def _run_stage(stage: Stage, run: Run, processes: Processes) -> StageResult:
    """Runs one stage to its end or its limit, and reads what it wrote."""
    limit_s = min(stage.limit_s, run.deadline_s - time.monotonic())
    words = stage_words(stage, run)
    command = shlex.join(["python", *words])
    if limit_s <= 0:
        return _result(stage, command, "timed out", 0.0, "the time of the whole check was used up (--minutes)")
    path, log = run.out / f"{stage.name}.json", run.out / f"{stage.name}.log"
    start_s = time.monotonic()
    try:
        path.unlink(missing_ok=True)
        code, cut = processes.run([*words, "--seconds", f"{limit_s:.1f}"], log, limit_s=limit_s)
    except OSError as error:
        return _result(stage, command, "crashed", 0.0, f"cannot be run ({error.strerror}): {error.filename}")
    seconds = time.monotonic() - start_s
    written = _read(path)
    if cut:
        return _result(stage, command, "timed out", seconds, f"cut after {limit_s:.0f} s; see {log.name}", written)
    if written is None or written.status == "running":
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return _result(stage, command, "crashed", seconds, f"{how}: {_last_line(log)}", written)
    return written.model_copy(update={"title": stage.title, "command": command, "seconds": seconds})


def stage_words(stage: Stage, run: Run) -> list[str]:
    """Returns Python's arguments that run a stage alone, in the project's folder with PYTHONPATH=benchmarks:tests."""
    module = f"{stage.package}.{stage.name}"
    return ["-m", module, "--device", run.device, "--out", str(run.out), "--work", str(run.out / "work")]


def _read(path: Path) -> StageResult | None:
    try:
        return StageResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _result(
    stage: Stage, command: str, status: Status, seconds: float, problem: str, written: StageResult | None = None
) -> StageResult:
    return StageResult(
        name=stage.name,
        title=stage.title,
        command=command,
        status=status,
        seconds=seconds,
        problems=(*(written.problems if written else ()), problem),
        figures=written.figures if written else (),
    )
