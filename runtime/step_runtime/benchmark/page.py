"""Writes a benchmark as one HTML file with everything in it (needs jinja2)."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from step.pages import page
from step.pages.charts import MOST_ROWS
from step.pages.page import FirstRows, Head, format_date
from step_runtime.benchmark.charts import accuracy_scatter, library_colors, time_bars
from step_runtime.benchmark.machine import describe_machine
from step_runtime.benchmark.results import Results
from step_runtime.benchmark.tables import all_cells

_ABOUT_THE_MACHINE = {"cpu": "processor", "cpu_mhz": "clock, MHz", "threads": "CPUs"}


def write_page(results: Results, verdict: Sequence[str], path: Path) -> None:
    """Writes tables and charts.

    Args:
        results: of the benchmark.
        verdict: lines of `verdict_lines`.
        path: to write.

    Raises:
        StepError: nowhere to write, or a package that is missing.
    """
    headings, rows = all_cells(results)
    values: dict[str, object] = {
        "results": results,
        "headings": headings,
        "rows": FirstRows.of([cells for cells in rows if len(cells) == len(headings)], MOST_ROWS),
        "problems": FirstRows.of([cells for cells in rows if len(cells) != len(headings)], MOST_ROWS),
        "library_colors": library_colors(results),
        "bars": time_bars(results),
        "scatter": accuracy_scatter(results),
        "details": _machine_facts(results) | results.versions,
    }
    head = Head(
        title=f"step-bench: {results.model}" if results.model else "step-bench",
        verdict=tuple(f"{line[:1].upper()}{line[1:]}." for line in verdict) or ("Nothing could be measured.",),
        facts={
            "Model": results.model,
            "Clip": results.clip,
            "mAP on": results.data,
            "Machine": describe_machine(results.machine),
            "Threads": results.threads,
            "Date": format_date(datetime.fromisoformat(results.date)) if results.date else "",
        },
        notes=(f"Partial: {results.partial}",) if results.partial else (),
    )
    page.write_page(path, package="step_runtime.benchmark", template="page.html.jinja", head=head, values=values)


def _machine_facts(results: Results) -> dict[str, str]:
    """What is known of the machine, by name."""
    return {
        _ABOUT_THE_MACHINE.get(name, name): value if isinstance(value, str) else json.dumps(value)
        for name, value in results.machine.items()
        if value is not None
    }
