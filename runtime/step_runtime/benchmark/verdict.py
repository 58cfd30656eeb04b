"""What a benchmark says in a line or two: which configuration to deploy, what it gives, and what speaks against it."""

import math

from step_runtime.benchmark.floor import Floor
from step_runtime.benchmark.results import ResultRow, Results

RUN_BY_STEP_RUN = ("torch", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt", "tensorrt-rtx")
"""Backends that `step-run` has too; the others of `step-bench` are there to be compared with."""
_LOST_MAP = 0.005  # less of a difference is none: what docs/usage.md allows fp16 to lose


def verdict_lines(results: Results, floor: Floor | None = None) -> list[str]:
    """Gives one line, or two; none where nothing was measured.

    The fastest configuration is chosen of those that `step-run` runs too and that lose no accuracy: where mAP was
    measured, those within 0.005 of the best; else those with all progressive steps.

    Args:
        results: of the benchmark.
        floor: the least time of a call; None where it is not known.
    """
    if not results.measured:
        return []
    runnable = [row for row in results.measured if row.configuration.get("backend") in RUN_BY_STEP_RUN]
    if not runnable:
        fastest = max(results.measured, key=_clips_per_s)
        return [f"nothing to deploy: step-run runs none of these; {_speed(fastest)} is the fastest"]
    accurate = _accurate(runnable)
    chosen = max(accurate, key=_clips_per_s)
    accuracy = "" if chosen.mean_ap is None else f", mAP {chosen.mean_ap:.4f}"
    parts = [f"deploy {_speed(chosen)} here{_over_baseline(chosen, results)}{accuracy}", _cameras(_clips_per_s(chosen))]
    behind = None if floor is None else floor.behind(chosen)
    if floor is not None and behind is not None:
        parts.append(f"{_behind(behind)} the floor of {_number(1e3 * floor.floor_s)} ms")
    line = "; ".join(parts)
    remarks = _remarks(results, runnable, accurate, chosen)
    return [f"so far: {line}" if results.partial else line, *(["; ".join(remarks)] if remarks else [])]


def _accurate(rows: list[ResultRow]) -> list[ResultRow]:
    scored = [row for row in rows if row.mean_ap is not None]
    if scored:
        best = max(row.mean_ap or 0.0 for row in scored)
        return [row for row in scored if (row.mean_ap or 0.0) >= best - _LOST_MAP]
    most = max(map(_num_steps, rows))
    return [row for row in rows if _num_steps(row) == most]


def _remarks(results: Results, runnable: list[ResultRow], accurate: list[ResultRow], chosen: ResultRow) -> list[str]:
    remarks = []
    alike = [row.name for row in accurate if row is not chosen and _meets(row, chosen)]
    if alike:
        remarks.append(f"as fast within noise: {', '.join(alike)}")
    if chosen.mean_ap is None and len({(row.configuration.get("precision"), _num_steps(row)) for row in runnable}) > 1:
        remarks.append("accuracy was not measured: --data scores every configuration")
    faster = [row for row in results.measured if _clips_per_s(row) > _clips_per_s(chosen) and not _meets(row, chosen)]
    if faster:
        fastest = max(faster, key=_clips_per_s)
        remarks.append(f"{_speed(fastest)}, is faster, but {_why_not(fastest, runnable, chosen)}")
    return remarks


def _why_not(row: ResultRow, runnable: list[ResultRow], chosen: ResultRow) -> str:
    if row not in runnable:
        return "step-run does not run it"
    if row.mean_ap is not None and chosen.mean_ap is not None:
        return f"its mAP is {row.mean_ap:.4f}, not {chosen.mean_ap:.4f}"
    return "its accuracy was not measured" if chosen.mean_ap is not None else "it runs fewer steps"


def _speed(row: ResultRow) -> str:
    return f"{row.name}: {_clips_per_s(row):.3g} clips/s"


def _behind(share: float) -> str:
    if share < 0.005:
        return "at"
    return f"{100 * share:.0f} % behind" if share < 1 else f"{1 + share:.1f} x"


def _over_baseline(row: ResultRow, results: Results) -> str:
    """Says how many times as fast as the baseline it is, clip by clip."""
    base = next((each for each in results.measured if each.name == results.baseline), None)
    if base is None or base is row:
        return ""
    clips = row.configuration["batch"] / base.configuration["batch"]
    return f" ({_number(clips / (row.ratio or math.inf))} x {base.name})"


def _cameras(clips_per_s: float) -> str:
    """Says what so many clips a second are enough for; a key frame takes one."""
    if clips_per_s >= 1:
        count = math.floor(clips_per_s)
        return f"enough for {count} camera{'s' * (count > 1)} at 1 key frame/s, decoding not counted"
    return f"enough for 1 camera at a key frame every {math.ceil(10 / clips_per_s) / 10:g} s, decoding not counted"


def _meets(row: ResultRow, chosen: ResultRow) -> bool:
    """Tells whether the intervals of the ratios of two rows of one batch meet: which is faster is not known."""
    bounds = (row.ratio_low, row.ratio_high, chosen.ratio_low, chosen.ratio_high)
    if None in bounds or row.configuration.get("batch") != chosen.configuration.get("batch"):
        return False
    low, high, chosen_low, chosen_high = (bound or 0.0 for bound in bounds)
    return low <= chosen_high and chosen_low <= high


def _clips_per_s(row: ResultRow) -> float:
    return row.clips_per_s or 0.0


def _num_steps(row: ResultRow) -> float:
    """Gives the progressive steps; all of them are the most, however many the model has."""
    steps = row.configuration.get("num_steps")
    return math.inf if steps is None else float(steps)


def _number(value: float) -> str:
    """Writes two digits that matter, or all of the whole number."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
