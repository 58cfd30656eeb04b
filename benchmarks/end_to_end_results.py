"""What end-to-end runs come to: statistics, JSON, tables and a plot."""

import statistics
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from end_to_end_runs import MeasuredRuns, every_text
from pydantic import BaseModel, ConfigDict
from rich import box
from rich.markup import escape
from rich.table import Table
from step_runtime.benchmark.machine import machine, versions
from step_runtime.benchmark.statistics import interval, median_ratio

from step.errors import StepError
from step.files.atomic import atomic_path

SCHEMA = 1
_COLUMNS = ("keys", "wall s", "keys/s", "frames/s", "lag s", "ratio", "95 %", "same")


class EndToEndRow(BaseModel):
    """One program at one rate of key frames.

    Attributes:
        program: its name.
        every: seconds between key frames, or "frame", as --every takes it.
        problem: why there are no figures, or no more; None where all went well.
        key_frames: of a run.
        walls_s: of each run.
        wall_s: their median, as the rates have it.
        key_frames_per_s, frames_per_s: of the model, and of the source.
        real_time: seconds of video in a second.
        worst_lag_s: median of the runs' longest times from a clip's frames being decoded to its detections; a program
            that decodes ahead counts the clip's wait for the model.
        ratio, ratio_low, ratio_high: of wall times to the first program's, paired by rounds, with a 95 % interval.
        agreement: share of detections that it has in common with the first program.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: str
    every: str
    problem: str | None
    key_frames: int = 0
    walls_s: list[float] = []
    wall_s: float | None = None
    key_frames_per_s: float | None = None
    frames_per_s: float | None = None
    real_time: float | None = None
    worst_lag_s: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    agreement: float | None = None


class EndToEndResults(BaseModel):
    """A whole comparison.

    Attributes:
        schema_version: of this file.
        kind: tells it from other benchmarks' files.
        video, model: what ran.
        source_frames, duration_s: of the video.
        baseline: program that ratios are to.
        threads: of the models; None for the libraries' choice.
        machine, versions: see `results`.
        rows: one for each program at each rate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    kind: str = "end-to-end"
    video: str
    model: str
    source_frames: int
    duration_s: float
    baseline: str
    threads: int | None
    machine: dict[str, Any]
    versions: dict[str, str]
    rows: list[EndToEndRow]

    @classmethod
    def of(
        cls,
        rows: Sequence[MeasuredRuns],
        *,
        video: str,
        model: str,
        source_frames: int,
        duration_s: Fraction,
        threads: int | None,
    ) -> Self:
        """Statistics of what was measured in rounds; the first row's program is what ratios are to."""
        first = rows[0].program
        bases = {row.every_s: row for row in rows if row.program == first}
        return cls(
            video=video,
            model=model,
            source_frames=source_frames,
            duration_s=float(duration_s),
            baseline=first,
            threads=threads,
            machine=machine(),
            versions=versions(),
            rows=[_row(row, bases[row.every_s], source_frames, duration_s) for row in rows],
        )

    def write(self, path: Path) -> None:
        """As JSON, atomically.

        Raises:
            StepError: it cannot be written.
        """
        with atomic_path(path) as scratch:
            scratch.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @property
    def measured(self) -> list[EndToEndRow]:
        """Rows with figures."""
        return [row for row in self.rows if row.wall_s is not None]


def end_to_end_table(results: EndToEndResults) -> Table:
    """A row for each program at each rate."""
    title = f"{results.video}, {results.source_frames} frames, {results.duration_s:.1f} s; {_where(results)}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("every", justify="right", no_wrap=True)
    table.add_column("program", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in results.measured:
        table.add_row(row.every, escape(row.program), *_cells(row))
    return table


def end_to_end_problems(results: EndToEndResults) -> list[str]:
    """One for each program that failed."""
    problems = {f"{row.program}: {row.problem}" for row in results.rows if row.problem is not None}
    return sorted(problems)


def end_to_end_markdown(results: EndToEndResults) -> str:
    """A Markdown table with a line that says where it was measured."""
    lines = [f"{results.video}, {results.source_frames} frames, {results.duration_s:.1f} s; {_where(results)}.", ""]
    lines += [f"| every | program | {' | '.join(_COLUMNS)} |", f"|---:|---|{'---:|' * len(_COLUMNS)}"]
    lines += [f"| {row.every} | {row.program} | {' | '.join(_cells(row))} |" for row in results.measured]
    lines += ["", *end_to_end_problems(results)] if end_to_end_problems(results) else []
    return "\n".join(lines) + "\n"


def draw_end_to_end(results: EndToEndResults, path: Path) -> None:
    """A PNG: wall time against key frames, and the rate of key frames that each program keeps up with.

    Raises:
        StepError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise StepError(f"a plot needs {error.name}; pip install 'step-trt[eval]'") from error
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    everys = list(dict.fromkeys(row.every for row in results.measured))
    programs = list(dict.fromkeys(row.program for row in results.measured))
    width = 0.8 / max(len(programs), 1)
    for number, program in enumerate(programs):
        rows = sorted((row for row in results.measured if row.program == program), key=lambda row: row.key_frames)
        walls = [[row.wall_s or 0.0, min(row.walls_s), max(row.walls_s)] for row in rows]
        spread = [[wall - low for wall, low, _ in walls], [high - wall for wall, _, high in walls]]
        left.errorbar(
            [row.key_frames for row in rows],
            [wall for wall, _, _ in walls],
            spread,
            marker="o",
            capsize=3,
            label=program,
        )
        places = [everys.index(row.every) + (number - (len(programs) - 1) / 2) * width for row in rows]
        bars = right.bar(places, [row.key_frames_per_s or 0.0 for row in rows], width)
        labels = ["" if row.agreement is None else f"{1 / (row.ratio or 1):.1f}x" for row in rows]
        right.bar_label(bars, labels, fontsize=8)
    left.axhline(results.duration_s, color="grey", linestyle="--", linewidth=1)
    left.text(
        0.02, results.duration_s, "the video's length", fontsize=8, va="bottom", transform=left.get_yaxis_transform()
    )
    left.set_xlabel("key frames")
    left.set_ylabel("wall time, s")
    left.set_xlim(left=0)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylim(bottom=0)
    left.legend(fontsize=8)
    right.set_xticks(
        range(len(everys)), [f"every {every} s" if every != "frame" else "every frame" for every in everys]
    )
    right.set_ylabel("key frames a second")
    right.margins(y=0.12)
    title = f"step-run by backend against the {results.baseline}: {results.video}, model {results.model}"
    figure.suptitle(f"{title}; {_where(results)}", fontsize=9)
    with atomic_path(path) as scratch:
        figure.savefig(scratch, format="png")


def _where(results: EndToEndResults) -> str:
    threads = "the libraries' choice of threads" if results.threads is None else f"{results.threads} threads"
    return f"{results.machine['cpu']}, {threads}"


def _row(row: MeasuredRuns, base: MeasuredRuns, source_frames: int, duration_s: Fraction) -> EndToEndRow:
    every = every_text(row.every_s)
    if not row.runs:
        return EndToEndRow(program=row.program, every=every, problem=row.problem)
    walls_s = [run.wall_s for run in row.runs]
    wall_s = statistics.median(walls_s)
    key_frames = row.runs[-1].key_frames
    pairs = min(len(row.runs), len(base.runs))
    ratio = (
        median_ratio([[wall] for wall in walls_s[:pairs]], [[run.wall_s] for run in base.runs[:pairs]])
        if pairs
        else None
    )
    return EndToEndRow(
        program=row.program,
        every=every,
        problem=row.problem,
        key_frames=key_frames,
        walls_s=walls_s,
        wall_s=wall_s,
        key_frames_per_s=key_frames / wall_s,
        frames_per_s=source_frames / wall_s,
        real_time=float(duration_s) / wall_s,
        worst_lag_s=statistics.median(run.worst_lag_s for run in row.runs),
        ratio=None if ratio is None else ratio.value,
        ratio_low=None if ratio is None else ratio.low,
        ratio_high=None if ratio is None else ratio.high,
        agreement=row.agreement,
    )


def _cells(row: EndToEndRow) -> tuple[str, ...]:
    same = "" if row.agreement is None else f"{100 * row.agreement:.1f} %"
    ratio = ("", "") if row.ratio is None else (f"{row.ratio:.3f}", interval(row.ratio_low, row.ratio_high))
    return (
        f"{row.key_frames}",
        f"{row.wall_s:.2f}",
        f"{row.key_frames_per_s:.2f}",
        f"{row.frames_per_s:.1f}",
        f"{row.worst_lag_s:.2f}",
        *ratio,
        same,
    )
