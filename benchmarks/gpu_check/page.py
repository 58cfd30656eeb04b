"""The Markdown page of a check: every figure, the card's name, and the command that repeats each stage."""

from collections.abc import Iterable
from pathlib import Path

from gpu_check.results import CheckResult, Figure, StageResult
from step.files.atomic import atomic_path

_FILLED_SHARE = 0.4  # a table with less in it than this is a list


def write_page(check: CheckResult, path: Path) -> None:
    """Writes `page_of` a check.

    Raises:
        StepError: it cannot be written.
    """
    with atomic_path(path) as scratch:
        scratch.write_text(page_of(check))


def page_of(check: CheckResult) -> str:
    """Writes the page as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in check.versions.items())
    lines = [
        f"# What `make gpu-check` found: {check.device}",
        "",
        f"{check.made_at}, {check.seconds:.0f} s. {versions}.",
        "Every stage's command runs from the project's folder with `PYTHONPATH=benchmarks:tests`.",
        "",
        "| stage | what it checks | status | seconds |",
        "|---|---|---|---:|",
    ]
    lines += [f"| {each.name} | {each.title} | {each.status} | {each.seconds:.0f} |" for each in check.stages]
    for stage in check.stages:
        lines += ["", *_stage(stage)]
    return "\n".join(lines) + "\n"


def _stage(stage: StageResult) -> Iterable[str]:
    yield f"## {stage.name}"
    yield ""
    yield f"`{stage.command}`: {stage.status}, {stage.seconds:.0f} s."
    if stage.problems:
        yield ""
        yield from (f"- {problem}" for problem in stage.problems)
    for title in dict.fromkeys(figure.table for figure in stage.figures):
        yield ""
        if title:
            yield f"**{title}**"
            yield ""
        yield from markdown_table([figure for figure in stage.figures if figure.table == title])


def markdown_table(figures: list[Figure]) -> Iterable[str]:
    """Arranges rows by columns, both in the order in which they first come; what was not measured is empty.

    Where rows have little in common, each figure is a row.
    """
    columns = list(dict.fromkeys(figure.column for figure in figures))
    if len(figures) < _FILLED_SHARE * len(columns) * len({figure.row for figure in figures}):
        yield "| | | |"
        yield "|---|---|---:|"
        yield from (f"| {figure.row} | {figure.column} | {_shown(figure.value)} |" for figure in figures)
        return
    values = {(figure.row, figure.column): figure.value for figure in figures}
    yield f"| | {' | '.join(columns)} |"
    yield f"|---|{'|'.join('---:' for _ in columns)}|"
    for row in dict.fromkeys(figure.row for figure in figures):
        cells = (_shown(values[row, column]) if (row, column) in values else "" for column in columns)
        yield f"| {row} | {' | '.join(cells)} |"


def _shown(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
