"""Running stages: processes with time limits; one that crashes, hangs or is cut takes nothing else with it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gpu_check.catalogue import Stage
from gpu_check.results import StageResult, Status
from gpu_check.stage import Device

_END_WAIT_S = 2.0
_CORES_A_STAGE = 4


@dataclass(frozen=True)
class Run:
    """One run of the check.

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
    """
    workers = max(1, min(4, (os.cpu_count() or 1) // _CORES_A_STAGE))
    results: dict[str, StageResult] = {}
    lock = threading.Lock()

    def perform(stage: Stage) -> None:
        result = run_stage_process(stage, run)
        with lock:
            results[stage.name] = result
            done(result)

    together = [stage for stage in stages if not stage.alone]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(perform, sorted(together, key=lambda stage: not stage.first)))
    for stage in stages:
        if stage.alone:
            perform(stage)
    return [results[stage.name] for stage in stages]


def run_stage_process(stage: Stage, run: Run) -> StageResult:
    """Runs one stage to its end or its limit, and reads what it wrote."""
    limit_s = min(stage.limit_s, run.deadline_s - time.monotonic())
    command = stage_command(stage, run)
    if limit_s <= 0:
        return _result(stage, command, "timed out", 0.0, "the time of the whole check was used up (--minutes)")
    path, log = run.out / f"{stage.name}.json", run.out / f"{stage.name}.log"
    path.unlink(missing_ok=True)
    start_s = time.monotonic()
    with log.open("w") as file:
        words = [sys.executable, *command.split()[1:], "--seconds", f"{limit_s:.1f}"]
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        try:
            process.wait(limit_s)
            cut = False
        except subprocess.TimeoutExpired:
            cut = True
        finally:
            _end(process)
    seconds = time.monotonic() - start_s
    written = _read(path)
    if cut:
        return _result(stage, command, "timed out", seconds, f"cut after {limit_s:.0f} s; see {log.name}", written)
    if written is None or written.status == "running":
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        return _result(stage, command, "crashed", seconds, f"{how}: {_last_line(log)}", written)
    return written.model_copy(update={"title": stage.title, "command": command, "seconds": seconds})


def stage_command(stage: Stage, run: Run) -> str:
    """What repeats a stage alone, from the project's folder with PYTHONPATH=benchmarks:tests."""
    return f"python -m {stage.package}.{stage.name} --device {run.device} --out {run.out} --work {run.out / 'work'}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_WAIT_S)
            if number == signal.SIGTERM:
                continue  # what it started may still be there
            return


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
