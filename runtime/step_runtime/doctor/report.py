"""What `step-doctor` found, as a table, as lines and as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from step.files.atomic import atomic_path
from step.revision import project_version
from step_runtime.doctor.finding import Finding, Status

_WORDS: dict[Status, str] = {"ok": "ok", "absent": "no", "failed": "FAILED"}
_MARKS: dict[Status, str] = {"ok": "[green]ok[/]", "absent": "[yellow]no[/]", "failed": "[bold red]FAILED[/]"}


@dataclass(frozen=True)
class Report:
    """Holds all findings.

    Attributes:
        findings: in the order in which they were made.
        next_command: what to type next.
    """

    findings: tuple[Finding, ...]
    next_command: str

    @property
    def passed(self) -> bool:
        """Whether the model and the video can be used, where they were given."""
        return all(finding.status != "failed" for finding in self.findings)

    def write(self, path: Path) -> None:
        """Writes a JSON file: `step_trt`, `passed`, `findings` (each with the attributes of `Finding`), `next_command`.

        Raises:
            StepError: it cannot be written.
        """
        content = {"step_trt": project_version(), "passed": self.passed, **asdict(self)}
        with atomic_path(path) as scratch:
            scratch.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def lines(self) -> list[str]:
        """Returns a line for each finding, which can be searched and copied."""
        return [f"{each.section}: {each.name}: {_WORDS[each.status]}: {each.text}" for each in self.findings]

    def table(self) -> Table:
        """Returns all findings for a terminal."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
        for column in ("section", "name", "mark", "text"):
            table.add_column(column, no_wrap=column == "mark", overflow="fold")
        section = ""
        for finding in self.findings:
            if section and finding.section != section:
                table.add_section()
            shown = "" if finding.section == section else finding.section
            section = finding.section
            table.add_row(shown, escape(finding.name), _MARKS[finding.status], escape(finding.text))
        return table
