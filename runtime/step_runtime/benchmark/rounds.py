"""Measuring configurations in rounds: A B C A B C ..."""

import math
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from step.errors import StepError
from step_runtime.benchmark.configurations import BenchConfiguration
from step_runtime.benchmark.gpu_meter import GpuMeter
from step_runtime.benchmark.worker_process import WorkerProcess

MIN_RUNS, MIN_S = 10, 3.0
Tell = Callable[[str, int, int, str], None]
"""Is told what is going on: the phase, how much of it is done, of about how much, and the name of the configuration."""
_WARM_UP_CALLS, _MOST_CALLS_A_ROUND = 2, 50


def tell_nobody(_phase: str, _done: int, _total: int, _name: str) -> None:
    """Tells nobody."""


@dataclass
class Row:
    """What was measured of one configuration.

    Attributes:
        configuration: which.
        rounds_s: seconds of every call, by round.
        problem: why there is nothing, or nothing more; None where all went well.
        device: what ran it, as its library says.
        load_s, first_s: of loading, and of the first call, which is in no round.
        model_bytes, build_s: of what is loaded, and what building it took; None where it was not built.
        source_sha256: of the checkpoint that the model comes from.
        host_bytes, device_bytes: largest memory of its process, and what it had on the GPU.
        gpu: index of the GPU; None on a CPU.
        threads: CPU threads that its library computes with; None where nothing says.
        rounds_j: energy of the GPU in each round; None where the driver does not say.
        mean_ap: frame-mAP at 0.5; None where none was asked for.
    """

    configuration: BenchConfiguration
    rounds_s: list[list[float]] = field(default_factory=list)
    problem: str | None = None
    device: str = ""
    load_s: float = 0.0
    first_s: float = 0.0
    model_bytes: int | None = None
    build_s: float | None = None
    source_sha256: str = ""
    host_bytes: int | None = None
    device_bytes: int | None = None
    gpu: int | None = None
    threads: int | None = None
    rounds_j: list[float | None] = field(default_factory=list)
    mean_ap: float | None = None

    @property
    def times_s(self) -> list[float]:
        """Seconds of the calls of all rounds."""
        return [time_s for times_s in self.rounds_s for time_s in times_s]

    @property
    def energy_j(self) -> float | None:
        """Energy of the GPU in all rounds together; None where the driver does not say of each."""
        known = [energy_j for energy_j in self.rounds_j if energy_j is not None]
        return sum(known) if known and len(known) == len(self.rounds_j) else None


class MeasuringInterrupted(KeyboardInterrupt):
    """Ctrl-C while something was measured.

    Attributes:
        rows: what is known: of the rounds that were finished, and of no other.
        num_rounds: how many those are.
    """

    def __init__(self, rows: list[Row]) -> None:
        working = [row for row in rows if row.problem is None]
        self.num_rounds = min((len(row.rounds_s) for row in working), default=0)
        for row in working:
            del row.rounds_s[self.num_rounds :], row.rounds_j[self.num_rounds :]
        self.rows = rows if self.num_rounds else []
        super().__init__(f"interrupted after {self.num_rounds} round{'s' * (self.num_rounds != 1)}")


def measure(
    configurations: Sequence[BenchConfiguration],
    clips: Path | Sequence[Path],
    *,
    data: tuple[Path, str] | None = None,
    min_runs: int = MIN_RUNS,
    min_s: float = MIN_S,
    tell: Tell = tell_nobody,
) -> list[Row]:
    """Times every configuration: at least so many calls and seconds each, a round of each after a round of each other.

    All processes are loaded at once, so that rounds can alternate; only one works at a time.

    Args:
        configurations: what to time.
        clips: see `WorkerProcess`; one file for all, or one for each. The first one's folder takes the decoded clips
            of `data`.
        data: folder and split of a data set, for the mAP of every configuration that takes single clips; None for none.
        min_runs: calls of each, after the first one.
        min_s: seconds of each.
        tell: see `Tell`.

    Raises:
        MeasuringInterrupted: a KeyboardInterrupt, with the rows so far.
    """
    rows = [Row(configuration) for configuration in configurations]
    files = [clips] * len(rows) if isinstance(clips, Path) else list(clips)
    try:
        _measure(rows, files, data=data, min_runs=min_runs, min_s=min_s, tell=tell)
    except KeyboardInterrupt as interrupt:
        raise MeasuringInterrupted(rows) from interrupt
    return rows


def _measure(
    rows: list[Row],
    files: Sequence[Path],
    *,
    data: tuple[Path, str] | None,
    min_runs: int,
    min_s: float,
    tell: Tell,
) -> None:
    """Fills in the rows; see `measure`."""
    with ExitStack() as stack:
        workers: dict[int, WorkerProcess] = {}
        for index, (row, file) in enumerate(zip(rows, files, strict=True)):
            tell("loading", index, len(rows), row.configuration.name)
            try:
                worker = stack.enter_context(WorkerProcess(row.configuration, file))
            except StepError as error:
                row.problem = str(error)
                continue
            workers[index] = worker
            loaded = worker.loaded
            row.device, row.load_s, row.first_s, row.gpu = loaded.device, loaded.load_s, loaded.first_s, loaded.gpu
            row.model_bytes, row.build_s, row.threads = loaded.model_bytes, loaded.build_s, loaded.threads
            row.source_sha256 = loaded.source_sha256
        _run_rounds(rows, workers, min_runs=min_runs, min_s=min_s, tell=tell)
        for index in list(workers):  # before clips of a data set take memory
            try:
                memory = workers[index].memory()
            except StepError as error:
                rows[index].problem = str(error)
                workers.pop(index).close()
                continue
            rows[index].host_bytes, rows[index].device_bytes = memory.host_bytes, memory.device_bytes
        if data is not None:
            score_rows(rows, workers, data, files[0].parent, tell)


def _run_rounds(
    rows: list[Row],
    workers: dict[int, WorkerProcess],
    *,
    min_runs: int,
    min_s: float,
    tell: Tell,
) -> None:
    """Fills in the times; a worker that fails is closed and taken out."""
    # A fast configuration makes several calls a round, so that all have their seconds after the same rounds.
    calls: dict[int, int] = {}
    for index in list(workers):
        tell("warming up", index, len(rows), rows[index].configuration.name)
        try:
            warm_s = min(workers[index].time_calls(_WARM_UP_CALLS))
        except StepError as error:
            rows[index].problem = str(error)
            workers.pop(index).close()
            continue
        calls[index] = max(1, min(_MOST_CALLS_A_ROUND, round(min_s / min_runs / max(warm_s, 1e-6))))
    done = 0
    while left := max((_rounds_left(rows[i], calls[i], min_runs, min_s) for i in workers), default=0):
        for index in list(workers):  # all go on until the last has enough, so that every round has all
            row = rows[index]
            tell("measuring in rounds", done, done + left, row.configuration.name)
            meter = None if row.gpu is None else GpuMeter(row.gpu)
            before_j = None if meter is None else meter.energy_j()
            try:
                row.rounds_s.append(workers[index].time_calls(calls[index]))
            except StepError as error:
                row.problem = str(error)
                workers.pop(index).close()
                continue
            after_j = None if meter is None else meter.energy_j()
            row.rounds_j.append(None if before_j is None or after_j is None else after_j - before_j)
        done += 1


class ScoringWorker(Protocol):
    """What scores a configuration on a data set: a `WorkerProcess`."""

    def mean_ap(self, data: Path, split: str, cache: Path) -> float:
        """See `WorkerProcess.mean_ap`."""

    def close(self) -> None:
        """See `WorkerProcess.close`."""


def score_rows(
    rows: list[Row],
    workers: MutableMapping[int, WorkerProcess] | MutableMapping[int, ScoringWorker],
    data: tuple[Path, str],
    cache: Path,
    tell: Tell,
) -> None:
    """Fills in the mAP; what computes the same numbers is scored once, by the fastest.

    Args:
        rows: with their times.
        workers: by the row's index; one that fails is closed and taken out.
        data: folder and split.
        cache: folder for decoded clips.
        tell: see `Tell`.
    """
    found: dict[BenchConfiguration, float] = {}
    for done, index in enumerate(sorted(workers, key=lambda index: min(rows[index].times_s))):
        row = rows[index]
        single = row.configuration.scored_as
        tell("scoring", done, len(workers), single.name)
        if single not in found:
            try:
                found[single] = workers[index].mean_ap(*data, cache)
            except StepError as error:
                row.problem = str(error)
                workers.pop(index).close()
                continue
        row.mean_ap = found[single]


def _rounds_left(row: Row, calls: int, min_runs: int, min_s: float) -> int:
    """Rounds that a row still needs, as far as the ones before tell; 0 where it has its calls and seconds."""
    times_s = row.times_s
    calls_left = max(min_runs - len(times_s), 0)
    rounds = math.ceil(calls_left / calls)
    left_s = min_s - sum(times_s)
    if left_s > 0:
        of_round_s = sum(times_s) / len(row.rounds_s) if row.rounds_s else min_s / max(math.ceil(min_runs / calls), 1)
        rounds = max(rounds, math.ceil(left_s / of_round_s) if of_round_s else 1)
    return rounds
