"""A benchmark's results: rows with their statistics, and where they come from, as JSON."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from step.errors import StepError
from step.files.atomic import atomic_path
from step.files.json_files import read_json
from step_runtime.benchmark.machine import machine, same_machine, versions
from step_runtime.benchmark.rounds import Row
from step_runtime.benchmark.statistics import median_ratio, percentile

SCHEMA = 2
MIN_COMPARED = 4
"""Runs of a row that `compare` wants before it calls a difference one."""


class ResultRow(BaseModel):
    """One configuration.

    Attributes:
        name: of the configuration; the same in two files means the same measurement.
        configuration: see `Configuration`.
        problem: why there are no figures; None where there are.
        device: as the library says.
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


class Results(BaseModel):
    """A whole benchmark.

    Attributes:
        schema_version: of this file.
        baseline: name of the row that ratios are to.
        data: what mAP is measured on; "" for nothing.
        clip: what was run on.
        machine: processor, threads, system, GPUs with their clocks.
        versions: of what ran.
        rows: one for each configuration.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    baseline: str
    data: str = ""
    clip: str = ""
    machine: dict[str, Any]
    versions: dict[str, str]
    rows: list[ResultRow]

    @classmethod
    def of(cls, rows: list[Row], *, baseline: str | None = None, data: str = "", clip: str = "") -> Self:
        """Statistics of what was measured.

        Args:
            rows: measured in rounds.
            baseline: name of a row; None, or one without figures, for the first that has some.
            data, clip: see `Results`.
        """
        good = [row for row in rows if row.rounds_s and row.problem is None]
        chosen = next((row for row in good if row.configuration.name == baseline), good[0] if good else None)
        return cls(
            baseline="" if chosen is None else chosen.configuration.name,
            data=data,
            clip=clip,
            machine=machine(),
            versions=versions(),
            rows=[_result(row, chosen) for row in rows],
        )

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


@dataclass(frozen=True)
class Change:
    """A row in two files: the ratio of medians, new over old, and whether it lies beyond both rows' spread."""

    name: str
    ratio: float
    is_slower: bool
    is_faster: bool


def compare(old: Results, new: Results) -> list[Change]:
    """Rows that both have, which differ beyond noise where the middle halves of their times do not meet."""
    before = {row.name: row for row in old.rows if row.times_ms and min(row.times_ms) > 0}
    changes = []
    for row in new.rows:
        if row.name not in before or not row.times_ms or min(row.times_ms) <= 0:
            continue
        other = before[row.name]
        (old_low, old_high), (low, high) = _middle_half(other.times_ms), _middle_half(row.times_ms)
        ratio = percentile(row.times_ms, 50) / percentile(other.times_ms, 50)
        is_enough = min(len(row.times_ms), len(other.times_ms)) >= MIN_COMPARED
        changes.append(
            Change(row.name, ratio, is_slower=is_enough and low > old_high, is_faster=is_enough and high < old_low)
        )
    return changes


def differences(old: Results, new: Results) -> list[str]:
    """What keeps two files from being compared row by row, a line each."""
    lines = [] if same_machine(old.machine, new.machine) else ["the two were measured on different machines"]
    if old.clip != new.clip:
        lines.append(f"the clips differ: {old.clip or 'unknown'}, {new.clip or 'unknown'}")
    before, after = ({row.name: row for row in each.rows} for each in (old, new))
    for name, row in before.items():
        other = after.get(name)
        if other is None:
            lines.append(f"{name}: only in the old file")
        elif row.problem is None and other.problem is not None:
            lines.append(f"{name}: measured before, not any more: {other.problem}")
        elif other.problem is None and row.problem is None:
            for field in ("device", "threads", "model"):
                one, another = row.configuration.get(field), other.configuration.get(field)
                is_same = Path(str(one)).name == Path(str(another)).name if field == "model" else one == another
                if not is_same:
                    lines.append(f"{name}: {field} was {one}, is {another}")
            if min(len(row.times_ms), len(other.times_ms)) < MIN_COMPARED:
                lines.append(f"{name}: fewer than {MIN_COMPARED} runs, too few to call a difference one")
    lines += [f"{name}: only in the new file" for name in after if name not in before]
    return lines


def _result(row: Row, baseline: Row | None) -> ResultRow:
    base: dict[str, Any] = {"name": row.configuration.name, "way": row.configuration.to_dict(), "problem": row.problem}
    if row.problem is not None or not row.rounds_s:
        return ResultRow(**base, device=row.device)
    times_s = row.times_s
    mean_s = sum(times_s) / len(times_s)
    assert baseline is not None
    ratio = asdict(median_ratio(row.rounds_s, baseline.rounds_s))
    return ResultRow(
        **base,
        device=row.device,
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


def _middle_half(times_ms: list[float]) -> tuple[float, float]:
    return percentile(times_ms, 25), percentile(times_ms, 75)
