"""Whole runs over a video, of several programs in rounds: wall time, rates, lag, and whether they find the same."""

import csv
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

from step_runtime.backends.select import BackendName
from step_runtime.detector import Detector
from step_runtime.outputs.run_source import RunOptions, run_source

from step.errors import StepError
from step.video_stream import VideoStream

_SCORE_APART, _BOX_APART = 1e-3, 5e-3  # of the same detection in two results; boxes in [0, 1]


@dataclass(frozen=True)
class RunFigures:
    """What one run over a video took, the model being loaded.

    Attributes:
        key_frames: how many were detected on.
        wall_s: from opening the video to the results being written.
        worst_lag_s: longest time from a clip's frames being decoded to its detections.
    """

    key_frames: int
    wall_s: float
    worst_lag_s: float


RunOnce = Callable[[Fraction | None, Path], RunFigures]
"""Runs at so many seconds between key frames (None: every frame), and leaves detections.csv in a folder."""


@dataclass
class MeasuredRuns:
    """Runs of one program at one rate of key frames.

    Attributes:
        program: its name.
        every_s: seconds between key frames; None for every frame.
        runs: one a round.
        problem: why there are no more; None where all went well.
        agreement: share of detections that it has in common with the first program; None for that one itself.
    """

    program: str
    every_s: Fraction | None
    runs: list[RunFigures] = field(default_factory=list)
    problem: str | None = None
    agreement: float | None = None


def measure_in_rounds(
    programs: Mapping[str, RunOnce],
    everys_s: Sequence[Fraction | None],
    folder: Path,
    *,
    rounds: int,
    progress: Callable[[int, int, str], None] = lambda _done, _total, _what: None,
) -> list[MeasuredRuns]:
    """Runs every program at every rate, a round of each after a round of each other: A B A B ...

    A first run of each, at the lowest rate, is not counted: libraries and files are warm after it.

    Args:
        programs: by name; the first is what others are compared with. One that fails keeps the rounds that it had.
        everys_s: seconds between key frames.
        folder: for the programs' results.
        rounds: runs of each at each rate.
        progress: is called with how many runs are done, of how many, and which is next.
    """
    rows = {(every_s, name): MeasuredRuns(name, every_s) for every_s in everys_s for name in programs}
    total, done = len(programs) + rounds * len(rows), 0
    slowest = max(everys_s, key=lambda every_s: Fraction(0) if every_s is None else every_s)
    broken: dict[str, str] = {}
    for round in range(rounds + 1):
        for (every_s, name), row in rows.items():
            if name in broken or (round == 0 and every_s != slowest):
                row.problem = broken.get(name)
                continue
            progress(done, total, f"{name}, {every_text(every_s)}")
            place = folder / name / every_text(every_s)
            place.mkdir(parents=True, exist_ok=True)
            try:
                figures = programs[name](every_s, place)
            except (StepError, BrokenProcessPool) as error:
                row.problem = broken[name] = str(error)
                continue
            done += 1
            if round:
                row.runs.append(figures)
    first = next(iter(programs))
    for (every_s, name), row in rows.items():
        if name != first and row.runs and rows[every_s, first].runs:
            found, expected = (folder / program / every_text(every_s) for program in (name, first))
            row.agreement = agreement(found / "detections.csv", expected / "detections.csv")
    return list(rows.values())


def every_text(every_s: Fraction | None) -> str:
    """Seconds between key frames as --every takes them."""
    return "frame" if every_s is None else f"{float(every_s):g}"


def run_step_run(
    every_s: Fraction | None, folder: Path, *, video: str, model: str, backend: str, threads: int | None
) -> RunFigures:
    """What `step-run --no-overlay` does, in this process, which keeps the model from call to call.

    Args:
        every_s: seconds between key frames; None for every frame.
        folder: for the results.
        video: file.
        model: bundle.
        backend: of `Detector.open`.
        threads: CPU threads of the model; None for the library's choice.

    Raises:
        StepError: the model or the video cannot be used.
    """
    summary = run_source(
        _detector(model, backend, threads),
        video,
        folder,
        RunOptions(every_s=every_s, overlay=False, overwrite=True),
    )
    return RunFigures(summary.key_frames, summary.elapsed_s, summary.worst_lag_s)


@functools.cache
def _detector(model: str, backend: str, threads: int | None) -> Detector:
    return Detector.open(model, cast(BackendName, backend), threads=threads)


def count_frames(video: str) -> int:
    """Frames that the container states, or else that can be decoded.

    Raises:
        StepError: it cannot be opened, or nothing in it can be decoded.
    """
    with VideoStream(video) as stream:
        return stream.stated_frames or sum(1 for _ in stream.decode())


def agreement(found: Path, expected: Path) -> float:
    """Share of two result files' detections that the other has too, the lesser of the two; 1 where both have none.

    The same is: the same second and class, scores within 0.001, corners within 0.5 % of the picture.

    Args:
        found, expected: in AVA's result format.
    """
    one, other = _read(found), _read(expected)
    return min(_share(one, other), _share(other, one))


_Rows = dict[tuple[str, str], list[list[float]]]


def _read(path: Path) -> _Rows:
    rows: _Rows = defaultdict(list)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for _, second, *box, label, score in csv.reader(file):
            rows[second, label].append([float(score), *map(float, box)])
    return rows


def _share(rows: _Rows, among: _Rows) -> float:
    total = sum(map(len, rows.values()))
    if not total:
        return 1.0
    same = sum(
        any(_is_same(row, other) for other in among.get(key, [])) for key, found in rows.items() for row in found
    )
    return same / total


def _is_same(row: list[float], other: list[float]) -> bool:
    return abs(row[0] - other[0]) <= _SCORE_APART and all(
        abs(a - b) <= _BOX_APART for a, b in zip(row[1:], other[1:], strict=True)
    )
