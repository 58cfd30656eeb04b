"""A trace's summary on the console."""

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from step_runtime.tracing.summary import Stage, TraceSummary

_BOUNDS_SHOWN = 3
_LEAST_SHARE = 0.001  # stages that take less of the run are left out, unless they are work


def trace_report(summary: TraceSummary) -> Group:
    """Stages, threads, overlap, and what the run's length is made of."""
    return Group(stage_table(summary), *(Text(line) for line in trace_lines(summary)))


def stage_table(summary: TraceSummary) -> Table:
    """A row for each stage of each thread; waits are dim."""
    title = f"stages of {summary.wall_s:.2f} s; a thread's stages wait for the processor too where threads share it"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("thread", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    for column in ("calls", "total s", "ms a call", "of wall", "critical"):
        table.add_column(column, justify="right", no_wrap=True)
    lane = None
    for stage in summary.stages:
        if (stage.is_wait or not stage.calls) and _share(summary, stage) < _LEAST_SHARE:
            continue
        style = "dim" if stage.is_wait else None
        table.add_row(stage.lane if stage.lane != lane else "", *_cells(summary, stage), style=style)
        lane = stage.lane
    return table


def trace_lines(summary: TraceSummary) -> list[str]:
    """Threads, overlap and the critical path in words."""
    wall_s = max(summary.wall_s, 1e-9)
    busy = ", ".join(f"{lane} {_percent(time_s / wall_s)}" for lane, time_s in summary.busy_s.items())
    idle = _percent(summary.overlap_s[0] / wall_s)
    critical_s: dict[str, float] = {}
    for stage in summary.bounds:
        critical_s[stage.lane] = critical_s.get(stage.lane, 0.0) + stage.critical_s
    ranked = sorted(critical_s.items(), key=lambda item: -item[1])
    lanes = ", ".join(f"{lane} {_percent(time_s / wall_s)}" for lane, time_s in ranked)
    bounds = ", ".join(
        f"{stage.name} ({stage.lane}) {_percent(stage.critical_s / wall_s)}" for stage in summary.bounds[:_BOUNDS_SHOWN]
    )
    return [
        f"busy: {busy} of the wall time",
        f"overlap: more than one worked in {_percent(summary.several_share)} of it, none in {idle}",
        f"bound by: {lanes}; most by {bounds}",
    ]


def _cells(summary: TraceSummary, stage: Stage) -> tuple[str, ...]:
    wall_s = max(summary.wall_s, 1e-9)
    critical = _percent(stage.critical_s / wall_s) if stage.critical_s else ""
    if not stage.calls:  # between the stages: nothing was timed there
        return stage.name, "", "", "", "", critical
    total = (f"{stage.calls}", f"{stage.total_s:.3f}", f"{1e3 * stage.total_s / stage.calls:.3f}")
    return (stage.name, *total, _percent(stage.total_s / wall_s), critical)


def _share(summary: TraceSummary, stage: Stage) -> float:
    return max(stage.total_s, stage.critical_s) / max(summary.wall_s, 1e-9)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
