"""A benchmark's results: rows with their statistics, and where they come from, as JSON."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from step.errors import StepError
from step.files.atomic import atomic_path
from step.files.json_files import read_json
from step_runtime.benchmark.machine import machine, versions
from step_runtime.benchmark.rounds import Row
from step_runtime.benchmark.statistics import median_ratio, percentile

SCHEMA = 2


class ResultRow(BaseModel):
    """One configuration.

    Attributes:
        name: of the configuration; the same in two files means the same measurement.
        configuration: see `BenchConfiguration`.
        problem: why there are no figures; None where there are.
        device: as the library says.
        threads: CPU threads that the library computed with; None where nothing says.
        source_sha256: of the checkpoint that the model comes from; "" in files of earlier versions.
        runs: calls that were timed.
        p50_ms, p95_ms, p99_ms, mean_ms: of a call, by trtexec's percentile rule.
        clips_per_s: batch / mean.
        ratio, ratio_low, ratio_high: median over the baseline's, with a 95 % bootstrap interval.
        load_s, first_ms: of loading, and of the first call.
        host_bytes, device_bytes: largest memory of the process, on the host and on the GPU.
        joules_per_clip: energy of the GPU, also while it waits for the host.
        model_bytes: of the engines or graphs that are loaded, or of the checkpoint.
        build_s: that building the engines took.
        mean_ap: frame-mAP at 0.5 on `Results.data`.
        times_ms: of every call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    configuration: dict[str, Any] = Field(alias="way")  # as earlier versions wrote it
    problem: str | None
    device: str = ""
    threads: int | None = None
    source_sha256: str = ""
    runs: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    mean_ms: float | None = None
    clips_per_s: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    load_s: float | None = None
    first_ms: float | None = None
    host_bytes: int | None = None
    device_bytes: int | None = None
    joules_per_clip: float | None = None
    model_bytes: int | None = None
    build_s: float | None = None
    mean_ap: float | None = None
    times_ms: list[float] = []


@dataclass(frozen=True, kw_only=True)
class BenchSubject:
    """Says what is measured, for the heads of tables and pages.

    Attributes:
        baseline: name of the row that ratios are to; None, or one without figures, for the first that has some.
        data, clip, model, partial, missing: see `Results`.
    """

    baseline: str | None = None
    data: str = ""
    clip: str = ""
    model: str = ""
    partial: str = ""
    missing: tuple[str, ...] = ()


class Results(BaseModel):
    """A whole benchmark.

    Attributes:
        schema_version: of this file.
        baseline: name of the row that ratios are to.
        data: what mAP is measured on; "" for nothing.
        clip: what was run on.
        model: what was measured, as it was asked for.
        date: when it ended, in ISO format with its time zone; "" in files of earlier versions.
        partial: why it is only a part of what was asked for; "" where it is all.
        missing: a line for each thing that was asked for and that there is no model or library for.
        machine: processor, threads, system, GPUs with their clocks.
        versions: of what ran.
        rows: one for each configuration.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    baseline: str
    data: str = ""
    clip: str = ""
    model: str = ""
    date: str = ""
    partial: str = ""
    missing: list[str] = []
    machine: dict[str, Any]
    versions: dict[str, str]
    rows: list[ResultRow]

    @classmethod
    def of(cls, rows: list[Row], subject: BenchSubject | None = None) -> Self:
        """Computes the statistics of what was measured just now.

        Args:
            rows: measured in rounds.
            subject: of what; None for nothing in particular.
        """
        subject = subject or BenchSubject()
        good = [row for row in rows if row.rounds_s and row.problem is None]
        chosen = next((row for row in good if row.configuration.name == subject.baseline), good[0] if good else None)
        return cls(
            baseline="" if chosen is None else chosen.configuration.name,
            data=subject.data,
            clip=subject.clip,
            model=subject.model,
            date=datetime.now().astimezone().isoformat(timespec="seconds"),
            partial=subject.partial,
            missing=list(subject.missing),
            machine=machine(),
            versions=versions(),
            rows=[_result(row, chosen) for row in rows],
        )

    @property
    def measured(self) -> list[ResultRow]:
        """Rows that have figures."""
        return [row for row in self.rows if row.problem is None]

    @property
    def threads(self) -> str:
        """CPU threads that ran, in words, such as "2 threads"; "" where nothing says."""
        counts = sorted({row.threads for row in self.measured if row.threads is not None})
        if not counts:
            return ""
        numbers = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"{numbers} thread{'s' * (counts != [1])}"

    def write(self, path: Path) -> None:
        """As JSON, atomically."""
        with atomic_path(path) as scratch:
            scratch.write_text(self.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The inverse of `write`.

        Raises:
            StepError: no such file, not one of step-bench, or of another schema.
        """
        content = read_json(path, advice="measure again")
        found = content.get("schema_version") if isinstance(content, dict) else None
        if found != SCHEMA:
            raise StepError(f"{path}: has schema {found}, this step-bench reads {SCHEMA}; measure again")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise StepError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; measure again") from error


def _result(row: Row, baseline: Row | None) -> ResultRow:
    base: dict[str, Any] = {"name": row.configuration.name, "way": row.configuration.to_dict(), "problem": row.problem}
    if row.problem is not None or not row.rounds_s:
        return ResultRow(**base, device=row.device, threads=row.threads, source_sha256=row.source_sha256)
    times_s = row.times_s
    mean_s = sum(times_s) / len(times_s)
    assert baseline is not None
    ratio = asdict(median_ratio(row.rounds_s, baseline.rounds_s))
    return ResultRow(
        **base,
        device=row.device,
        threads=row.threads,
        source_sha256=row.source_sha256,
        runs=len(times_s),
        p50_ms=1e3 * percentile(times_s, 50),
        p95_ms=1e3 * percentile(times_s, 95),
        p99_ms=1e3 * percentile(times_s, 99),
        mean_ms=1e3 * mean_s,
        clips_per_s=row.configuration.batch / mean_s,
        ratio=ratio["value"],
        ratio_low=ratio["low"],
        ratio_high=ratio["high"],
        load_s=row.load_s,
        first_ms=1e3 * row.first_s,
        host_bytes=row.host_bytes,
        device_bytes=row.device_bytes,
        joules_per_clip=None if row.energy_j is None else row.energy_j / (len(times_s) * row.configuration.batch),
        model_bytes=row.model_bytes,
        build_s=row.build_s,
        mean_ap=row.mean_ap,
        times_ms=[1e3 * time_s for time_s in times_s],
    )
