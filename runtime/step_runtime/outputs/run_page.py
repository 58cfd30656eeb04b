"""`run.html`: a run as one page, its overlay and who did what for how long (needs jinja2)."""

from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from step.config import StepConfig
from step.pages.charts import MOST_BARS, Bar
from step.pages.page import FirstRows, Head, format_date, write_page
from step_runtime.benchmark.machine import describe_machine, machine
from step_runtime.outputs.run_summary import RunSummary, seconds_by_action, summary_lines

RUN_PAGE = "run.html"


def write_run_page(summary: RunSummary, *, config: StepConfig, model: str, what_ran: str, folder: Path) -> None:
    """Writes the page beside the run's files, which it shows and links to.

    Args:
        summary: of a run with at least one key frame.
        config: of the model; it has the names of the actions.
        model: what the page calls it.
        what_ran: the backend, its device and loop.
        folder: where the run's files are.

    Raises:
        StepError: nowhere to write, a full disk, or a package that is missing.
    """
    lines = summary_lines(summary, config=config, what_ran=what_ran, folder=folder)
    by_action = seconds_by_action(summary, config)
    longest_s = max((seconds for _, seconds in by_action), default=1.0)
    bars = [
        Bar(name=name, text=f"{seconds:.1f} s", color="blue", percent=round(100 * seconds / longest_s, 1))
        for name, seconds in by_action
    ]
    head = Head(
        title=f"step-run: {summary.video}",
        verdict=tuple(line for line in lines if not line.startswith(("  ", "results: "))),
        facts={
            "Model": model,
            "Backend": what_ran,
            "Machine": describe_machine(machine()),
            "Date": format_date(datetime.now().astimezone()),
        },
        notes=tuple(summary.state.notes)
        + tuple(f"{problem}; what came before is kept" for problem in summary.state.problems),
    )
    files = {name: quote(name) for name in summary.files if name != RUN_PAGE}
    values: dict[str, object] = {"bars": FirstRows.of(bars, MOST_BARS), "files": files}
    write_page(
        folder / RUN_PAGE, package="step_runtime.outputs", template="run_page.html.jinja", head=head, values=values
    )
