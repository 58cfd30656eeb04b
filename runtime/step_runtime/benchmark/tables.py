"""What step-bench prints."""

from rich import box
from rich.markup import escape
from rich.table import Table

from step_runtime.benchmark.results import Change, Results

_COLUMNS = ("p50 ms", "p95", "p99", "clips/s", "ratio", "95 %", "load s", "host MB")


def results_table(results: Results) -> Table:
    """A row for each way; those that could not run say why."""
    title = f"{results.machine['cpu']}, {results.machine['threads']} threads; ratios to {results.baseline or 'nothing'}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("way", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in results.rows:
        if row.problem is not None or row.p50_ms is None:
            continue
        assert row.ratio is not None
        numbers = (row.p50_ms, row.p95_ms, row.p99_ms)
        memory = "" if row.host_bytes is None else f"{row.host_bytes / 1e6:.0f}"
        spread = f"{row.ratio_low:.3f}-{row.ratio_high:.3f}"
        shown = (f"{row.clips_per_s:.3g}", f"{row.ratio:.3f}", spread, f"{row.load_s:.1f}", memory)
        table.add_row(escape(row.name), *(f"{value:.1f}" for value in numbers), *shown)
    return table


def problem_lines(results: Results) -> list[str]:
    """One for each way that could not run."""
    return [f"{row.name}: not measured: {row.problem}" for row in results.rows if row.problem is not None]


def markdown(results: Results) -> str:
    """The same as a Markdown table."""
    head = ("way", *_COLUMNS)
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * len(_COLUMNS)}"]
    for row in results.rows:
        if row.problem is not None or row.p50_ms is None:
            lines.append(f"| {row.name} | {'| ' * (len(_COLUMNS) - 1)}| {row.problem} |")
            continue
        memory = "" if row.host_bytes is None else f"{row.host_bytes / 1e6:.0f}"
        numbers = (f"{value:.1f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms) if value is not None)
        spread = f"{row.ratio_low:.3f}-{row.ratio_high:.3f}"
        shown = (*numbers, f"{row.clips_per_s:.3g}", f"{row.ratio:.3f}", spread, f"{row.load_s:.1f}", memory)
        lines.append(f"| {row.name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


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
