"""Measuring ways in turns: A B C A B C ..."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from step.errors import StepError
from step_runtime.benchmark.configurations import Way
from step_runtime.benchmark.gpu_meter import GpuMeter
from step_runtime.benchmark.worker_process import WorkerProcess

MIN_RUNS, MIN_S = 10, 3.0
_WARM_UP_CALLS, _MOST_CALLS_A_TURN = 2, 50


@dataclass
class Row:
    """What was measured of one way.

    Attributes:
        way: which.
        rounds_s: seconds of every call, by round.
        problem: why there is nothing, or nothing more; None where all went well.
        device: what ran it, as its library says.
        load_s, first_s: of loading, and of the first call, which is in no round.
        model_bytes, build_s: of what is loaded, and what building it took; None where it was not built.
        host_bytes, device_bytes: largest memory of its process, and what it had on the GPU.
        gpu: index of the GPU; None on a CPU.
        energy_j: of the GPU in all rounds together; None where the driver does not say.
        mean_ap: frame-mAP at 0.5; None where none was asked for.
    """

    way: Way
    rounds_s: list[list[float]] = field(default_factory=list)
    problem: str | None = None
    device: str = ""
    load_s: float = 0.0
    first_s: float = 0.0
    model_bytes: int | None = None
    build_s: float | None = None
    host_bytes: int | None = None
    device_bytes: int | None = None
    gpu: int | None = None
    energy_j: float | None = None
    mean_ap: float | None = None

    @property
    def times_s(self) -> list[float]:
        """Of all rounds."""
        return [time_s for turn in self.rounds_s for time_s in turn]


def measure(
    ways: Sequence[Way],
    clips: Path | Sequence[Path],
    *,
    data: tuple[Path, str] | None = None,
    min_runs: int = MIN_RUNS,
    min_s: float = MIN_S,
    progress: Callable[[int, int, str], None] = lambda _done, _total, _what: None,
) -> list[Row]:
    """Times every way: at least so many calls and seconds each, a turn of each after a turn of each other.

    All processes are loaded at once, so that turns can alternate; only one works at a time.

    Args:
        ways: what to time.
        clips: see `WorkerProcess`; one file for all, or one for each. The first one's folder takes the decoded clips
            of `data`.
        data: folder and split of a data set, for the mAP of every way that takes single clips; None for none.
        min_runs: calls of each, after the first one.
        min_s: seconds of each.
        progress: is told how many turns are done, of about how many, and what is going on.
    """
    rows = [Row(way) for way in ways]
    files = [clips] * len(rows) if isinstance(clips, Path) else list(clips)
    with ExitStack() as stack:
        workers: dict[int, WorkerProcess] = {}
        for index, (row, file) in enumerate(zip(rows, files, strict=True)):
            progress(0, len(rows), f"loading {row.way.name}")
            try:
                worker = stack.enter_context(WorkerProcess(row.way, file))
            except StepError as error:
                row.problem = str(error)
                continue
            workers[index] = worker
            row.device, row.load_s, row.first_s, row.gpu = worker.device, worker.load_s, worker.first_s, worker.gpu
            row.model_bytes, row.build_s = worker.model_bytes, worker.build_s
        _take_turns(rows, workers, min_runs=min_runs, min_s=min_s, progress=progress)
        for index in list(workers):  # before clips of a data set take memory
            try:
                memory = workers[index].memory()
            except StepError as error:
                rows[index].problem = str(error)
                workers.pop(index).close()
                continue
            rows[index].host_bytes, rows[index].device_bytes = memory["host_bytes"], memory["device_bytes"]
        if data is not None:
            _score(rows, workers, data, files[0].parent, progress)
    return rows


def _take_turns(
    rows: list[Row],
    workers: dict[int, WorkerProcess],
    *,
    min_runs: int,
    min_s: float,
    progress: Callable[[int, int, str], None],
) -> None:
    """Fills in the times; a worker that fails is closed and taken out."""
    # A fast way makes several calls a turn, so that all have their seconds after the same rounds.
    calls: dict[int, int] = {}
    for index in list(workers):
        progress(0, len(rows), f"warming up {rows[index].way.name}")
        try:
            warm_s = min(workers[index].time_calls(_WARM_UP_CALLS))
        except StepError as error:
            rows[index].problem = str(error)
            workers.pop(index).close()
            continue
        calls[index] = max(1, min(_MOST_CALLS_A_TURN, round(min_s / min_runs / max(warm_s, 1e-6))))
    done = 0
    while waiting := [i for i in workers if _wants_more(rows[i], min_runs, min_s)]:
        for index in list(workers):  # all go on until the last has enough, so that every round has all
            row = rows[index]
            progress(done, done + len(waiting), row.way.name)
            meter = None if row.gpu is None else GpuMeter(row.gpu)
            before_j = None if meter is None else meter.energy_j()
            try:
                row.rounds_s.append(workers[index].time_calls(calls[index]))
            except StepError as error:
                row.problem = str(error)
                workers.pop(index).close()
                continue
            after_j = None if meter is None else meter.energy_j()
            if before_j is not None and after_j is not None:
                row.energy_j = (row.energy_j or 0.0) + after_j - before_j
        done += 1


def _score(
    rows: list[Row],
    workers: dict[int, WorkerProcess],
    data: tuple[Path, str],
    cache: Path,
    progress: Callable[[int, int, str], None],
) -> None:
    """Fills in the mAP; what computes the same numbers is scored once, by the fastest."""
    found: dict[Way, float] = {}
    for done, index in enumerate(sorted(workers, key=lambda index: min(rows[index].times_s))):
        row = rows[index]
        single = row.way.scored_as
        progress(done, len(workers), f"mAP of {single.name}")
        if single not in found:
            try:
                found[single] = workers[index].mean_ap(*data, cache)
            except StepError as error:
                row.problem = str(error)
                workers.pop(index).close()
                continue
        row.mean_ap = found[single]


def _wants_more(row: Row, min_runs: int, min_s: float) -> bool:
    times_s = row.times_s
    return len(times_s) < min_runs or sum(times_s) < min_s
