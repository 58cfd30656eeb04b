"""A benchmark as one HTML file with everything in it (needs matplotlib and jinja2)."""

import base64
import importlib.util
import json
from pathlib import Path

from step.errors import StepError
from step.files.atomic import atomic_path
from step_runtime.benchmark.plots import draw_front, draw_times
from step_runtime.benchmark.results import Results
from step_runtime.benchmark.tables import all_cells


def write_page(results: Results, path: Path) -> None:
    """Tables and figures of a benchmark.

    Raises:
        StepError: nowhere to write, or a package that is missing.
    """
    check_packages("--html")
    import jinja2

    headings, rows = all_cells(results)
    figures = {"Time": draw_times(results), "Accuracy and speed": draw_front(results)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("step_runtime.benchmark", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        results=results,
        machine={name: value if isinstance(value, str) else json.dumps(value) for name, value in _told(results)},
        headings=headings,
        rows=[cells for cells in rows if len(cells) == len(headings)],
        problems=[cells for cells in rows if len(cells) != len(headings)],
        figures={
            title: f"data:image/png;base64,{base64.b64encode(content).decode()}"
            for title, content in figures.items()
            if content is not None
        },
    )
    with atomic_path(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def check_packages(option: str) -> None:
    """Whether what an option asks for can be drawn.

    Raises:
        StepError: a package is missing.
    """
    for name in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise StepError(f"{option} needs {name}; install it with: pip install 'step-trt[eval]'")


def _told(results: Results) -> list[tuple[str, object]]:
    return [(name, value) for name, value in results.machine.items() if value is not None]
