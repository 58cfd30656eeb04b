"""What step-bench prints."""

from collections.abc import Callable, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from step_runtime.benchmark.comparison import Change
from step_runtime.benchmark.machine import describe_machine
from step_runtime.benchmark.results import ResultRow, Results
from step_runtime.benchmark.statistics import interval

Cell = Callable[[ResultRow], str]


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "" if value is None else format(value * scale, form)


_COLUMNS: dict[str, Cell] = {
    "p50 ms": lambda row: _number(row.p50_ms, ".1f"),
    "p95": lambda row: _number(row.p95_ms, ".1f"),
    "clips/s": lambda row: _number(row.clips_per_s, ".3g"),
    "ratio": lambda row: _number(row.ratio, ".3f"),
    "95 %": lambda row: interval(row.ratio_low, row.ratio_high),
    "mAP": lambda row: _number(row.mean_ap, ".4f"),
    "GPU MB": lambda row: _number(row.device_bytes, ".0f", 1e-6),
    "J/clip": lambda row: _number(row.joules_per_clip, ".3g"),
}
_MORE_COLUMNS: dict[str, Cell] = {  # of files, which have room
    "host MB": lambda row: _number(row.host_bytes, ".0f", 1e-6),
    "p99": lambda row: _number(row.p99_ms, ".1f"),
    "mean": lambda row: _number(row.mean_ms, ".1f"),
    "runs": lambda row: str(row.runs),
    "threads": lambda row: "" if row.threads is None else str(row.threads),
    "model MB": lambda row: _number(row.model_bytes, ".1f", 1e-6),
    "build s": lambda row: _number(row.build_s, ".1f"),
    "load s": lambda row: _number(row.load_s, ".1f"),
    "first ms": lambda row: _number(row.first_ms, ".0f"),
    "device": lambda row: row.device,
}


def results_table(results: Results) -> Table:
    """A row for each configuration that could run."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("configuration")  # may break, so that figures never do
    columns = _filled(_COLUMNS, results)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in results.measured:
        table.add_row(escape(row.name), *(cell(row) for cell in columns.values()))
    return table


def title_line(results: Results) -> str:
    """Names the machine, the threads that ran, and what ratios are to."""
    ran = f"{results.threads} ran; " if results.threads else ""
    return f"{describe_machine(results.machine)}; {ran}ratios to {results.baseline or 'nothing'}"


def problem_lines(results: Results) -> list[str]:
    """Says what was not measured, and whether the rest is a part only; a line each."""
    lines = [f"partial: {results.partial}"] if results.partial else []
    lines += results.missing
    return lines + [f"{row.name}: not measured: {row.problem}" for row in results.rows if row.problem is not None]


def all_cells(results: Results) -> tuple[list[str], list[list[str]]]:
    """Headings, and the cells of all rows, of every column that has something in it.

    A row that could not run has its problem in its second cell, and no more.
    """
    columns = _filled(_COLUMNS | _MORE_COLUMNS, results)
    rows = [
        [row.name, *(cell(row) for cell in columns.values())] if row.problem is None else [row.name, row.problem]
        for row in results.rows
    ]
    return ["configuration", *columns], rows


def markdown(results: Results, verdict: Sequence[str] = ()) -> str:
    """A Markdown table of all rows, and the verdict's lines below."""
    headings, rows = all_cells(results)
    lines = [f"| {' | '.join(headings)} |", f"|---|{'---:|' * (len(headings) - 1)}"]
    for cells in rows:
        blank = [""] * (len(headings) - len(cells))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in [*cells, *blank])} |")
    if results.partial:
        lines += ["", f"Partial: {results.partial}."]
    for line in verdict:
        lines += ["", line]
    return "\n".join(lines) + "\n"


def changes_table(changes: list[Change]) -> Table:
    """New over old; what lies beyond noise is named."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("configuration", no_wrap=True)
    table.add_column("new / old", justify="right")
    table.add_column("")
    for change in changes:
        verdict = "[red]slower[/]" if change.is_slower else "[green]faster[/]" if change.is_faster else "within noise"
        table.add_row(escape(change.name), f"{change.ratio:.3f}", verdict)
    return table


def _filled(columns: dict[str, Cell], results: Results) -> dict[str, Cell]:
    """Those that at least one row has something in."""
    return {name: cell for name, cell in columns.items() if any(cell(row) for row in results.measured)}
