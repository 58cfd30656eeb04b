"""`step-doctor [BUNDLE] [VIDEO]`."""

import sys
from pathlib import Path

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from step.cli import OneLineCommand, examples, find_reporter
from step.shown import make_console
from step_runtime.doctor.findings import Finding, Status, examine

_WORDS: dict[Status, str] = {"ok": "ok", "absent": "no", "failed": "FAILED"}
_MARKS: dict[Status, str] = {"ok": "[green]ok[/]", "absent": "[yellow]no[/]", "failed": "[bold red]FAILED[/]"}


@click.command(
    cls=OneLineCommand,
    epilog=examples("step-doctor", "step-doctor build/bundle", "step-doctor build/bundle video.mp4"),
)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.argument("video", required=False)
def main(bundle: Path | None, video: str | None) -> None:
    """Says what this machine has, whether BUNDLE is whole and what would run it, and whether VIDEO can be decoded.

    Exit code 1 if the bundle cannot run or the video cannot be read.
    """
    console = make_console()
    with find_reporter().progress("looking"):
        findings = list(examine(bundle, video))
    if console.is_terminal:
        console.print(_table(findings))
    else:  # whole lines, which can be searched and copied
        for found in findings:
            line = f"{found.section}: {found.name}: {_WORDS[found.status]}: {found.text}"
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    if any(finding.status == "failed" for finding in findings):
        sys.exit(1)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
    for column in ("section", "name", "mark", "text"):
        table.add_column(column, no_wrap=column == "mark", overflow="fold")
    section = ""
    for finding in findings:
        if section and finding.section != section:
            table.add_section()
        shown = "" if finding.section == section else finding.section
        section = finding.section
        table.add_row(shown, escape(finding.name), _MARKS[finding.status], escape(finding.text))
    return table
