"""What step-bench prints."""

from rich import box
from rich.markup import escape
from rich.table import Table

from step_runtime.benchmark.results import Change, ResultRow, Results

_COLUMNS = ("p50 ms", "p95", "clips/s", "ratio", "95 %", "MB")
_MORE_COLUMNS = ("p99", "load s", "first ms")  # of the Markdown table, which has room


def results_table(results: Results) -> Table:
    """A row for each way that could run."""
    title = f"{results.machine['cpu']}, {results.machine['threads']} threads; ratios to {results.baseline or 'nothing'}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("way", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in results.rows:
        if row.problem is None:
            table.add_row(escape(row.name), *_cells(row))
    return table


def problem_lines(results: Results) -> list[str]:
    """One for each way that could not run."""
    return [f"{row.name}: not measured: {row.problem}" for row in results.rows if row.problem is not None]


def markdown(results: Results) -> str:
    """A Markdown table of all rows."""
    columns = (*_COLUMNS, *_MORE_COLUMNS)
    lines = [f"| way | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for row in results.rows:
        more = (f"{row.p99_ms:.1f}", f"{row.load_s:.1f}", f"{row.first_ms:.0f}") if row.problem is None else ()
        cells = (*_cells(row), *more) if row.problem is None else (row.problem, *[""] * (len(columns) - 1))
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(row: ResultRow) -> tuple[str, ...]:
    memory = "" if row.host_bytes is None else f"{row.host_bytes / 1e6:.0f}"
    spread = f"{row.ratio_low:.3f}-{row.ratio_high:.3f}"
    return (f"{row.p50_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.clips_per_s:.3g}", f"{row.ratio:.3f}", spread, memory)


def changes_table(changes: list[Change]) -> Table:
    """New over old; what lies beyond noise is named."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("way", no_wrap=True)
    table.add_column("new / old", justify="right")
    table.add_column("")
    for change in changes:
        verdict = "[red]slower[/]" if change.is_slower else "[green]faster[/]" if change.is_faster else "within noise"
        table.add_row(escape(change.name), f"{change.ratio:.3f}", verdict)
    return table
