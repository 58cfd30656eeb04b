"""Compares two benchmarks: whether they can be, and which rows became slower or faster beyond noise."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from step.errors import StepError
from step_runtime.benchmark.machine import describe_machine, same_machine
from step_runtime.benchmark.results import ResultRow, Results
from step_runtime.benchmark.statistics import percentile

MIN_COMPARED = 4
"""Runs of a row that `compare` wants before it calls a difference one."""
Aspect = Literal["machine", "model", "threads"]
"""What two benchmarks have to have in common for their times to say something about the code."""
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)


@dataclass(frozen=True)
class Change:
    """A row in two files: the ratio of medians, new over old, and whether it lies beyond both rows' spread."""

    name: str
    ratio: float
    is_slower: bool
    is_faster: bool


def compare(old: Results, new: Results) -> list[Change]:
    """Compares rows that both have, which differ beyond noise where the middle halves of their times do not meet."""
    changes = []
    for name, (before, after) in _pairs(old, new).items():
        if min([*before.times_ms, *after.times_ms], default=0.0) <= 0 or not before.times_ms or not after.times_ms:
            continue
        (old_low, old_high), (low, high) = _middle_half(before.times_ms), _middle_half(after.times_ms)
        ratio = percentile(after.times_ms, 50) / percentile(before.times_ms, 50)
        is_enough = min(len(after.times_ms), len(before.times_ms)) >= MIN_COMPARED
        changes.append(
            Change(name, ratio, is_slower=is_enough and low > old_high, is_faster=is_enough and high < old_low)
        )
    return changes


def check_comparable(old: Results, new: Results, *, may_differ: Collection[str] = ()) -> None:
    """Refuses benchmarks whose times differ for another reason than the code.

    Args:
        old, new: the two.
        may_differ: of `ASPECTS`, what is known and wanted to differ.

    Raises:
        StepError: what differs, and how to compare all the same.
    """
    found = {aspect: line for aspect, line in _unlike(old, new).items() if aspect not in may_differ}
    if found:
        raise StepError(
            f"they cannot be compared: {'; '.join(found.values())}; measure again under the same conditions, or give "
            f"--may-differ {','.join(found)}"
        )


def differences(old: Results, new: Results) -> list[str]:
    """Says what else keeps two files from being compared row by row, a line each."""
    lines = [f"they differ as allowed: {line}" for line in _unlike(old, new).values()]
    lines += [
        f"the {age} file is partial: {each.partial}" for age, each in (("old", old), ("new", new)) if each.partial
    ]
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
            one, another = row.configuration.get("device"), other.configuration.get("device")
            if one != another:
                lines.append(f"{name}: device was {one}, is {another}")
            if min(len(row.times_ms), len(other.times_ms)) < MIN_COMPARED:
                lines.append(f"{name}: fewer than {MIN_COMPARED} runs, too few to call a difference one")
    lines += [f"{name}: only in the new file" for name in after if name not in before]
    return lines


def _unlike(old: Results, new: Results) -> dict[Aspect, str]:
    """Aspects that differ, each with a line that says how; of rows, the first that does."""
    found: dict[Aspect, str] = {}
    if not same_machine(old.machine, new.machine):
        found["machine"] = f"the machine was {describe_machine(old.machine)}, is {describe_machine(new.machine)}"
    for name, (before, after) in _pairs(old, new).items():
        if before.problem is not None or after.problem is not None:
            continue
        if not _is_same_model(before, after):
            found.setdefault("model", f"the model of {name} was {_model(before)}, is {_model(after)}")
        one, another = _threads(before, after)
        if one != another:
            found.setdefault("threads", f"the threads of {name} were {one}, are {another}")
    return {aspect: found[aspect] for aspect in ASPECTS if aspect in found}


def _pairs(old: Results, new: Results) -> dict[str, tuple[ResultRow, ResultRow]]:
    """Rows of one name in both, in the new one's order."""
    before = {row.name: row for row in old.rows}
    return {row.name: (before[row.name], row) for row in new.rows if row.name in before}


def _is_same_model(before: ResultRow, after: ResultRow) -> bool:
    """By the checkpoint, so that another export of it may be compared; by name where a file does not have it."""
    if before.source_sha256 and after.source_sha256:
        return before.source_sha256 == after.source_sha256
    names = [Path(str(row.configuration.get("model"))).name for row in (before, after)]
    return names[0] == names[1]


def _model(row: ResultRow) -> str:
    name = Path(str(row.configuration.get("model"))).name
    return f"{name} of checkpoint {row.source_sha256[:8]}" if row.source_sha256 else name


def _threads(before: ResultRow, after: ResultRow) -> tuple[object, object]:
    """Threads that ran in both; what was asked for where a file does not have them."""
    if before.threads is not None and after.threads is not None:
        return before.threads, after.threads
    one, another = (row.configuration.get("threads") or "the library's choice" for row in (before, after))
    return one, another


def _middle_half(times_ms: list[float]) -> tuple[float, float]:
    return percentile(times_ms, 25), percentile(times_ms, 75)
