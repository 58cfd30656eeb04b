"""Writes an HTML report: one file with everything in it, for narrow and wide windows, light and dark (needs jinja2)."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from step.errors import StepError
from step.files.atomic import atomic_path
from step.shown import shown

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Head:
    """Says what every page says first.

    Attributes:
        title: of the window and the page.
        verdict: the answer, in one or two lines.
        facts: by name, such as model, data, machine and date.
        notes: what a reader should know before the figures, one line each.
    """

    title: str
    verdict: tuple[str, ...]
    facts: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FirstRows(Generic[Row]):
    """Holds as many rows as a page shows, and how many there are."""

    rows: Sequence[Row]
    total: int

    @classmethod
    def of(cls, rows: Sequence[Row], most: int) -> "FirstRows[Row]":
        """Takes the first `most`."""
        return cls(rows[:most], len(rows))


def write_page(path: Path, *, package: str, template: str, head: Head, values: Mapping[str, object]) -> None:
    """Renders a template that extends `base.html.jinja`; whatever is put in is escaped.

    Args:
        path: to write.
        package: whose folder has the template.
        template: its file name.
        head: see `Head`.
        values: what the template shows, by name.

    Raises:
        StepError: nowhere to write, a full disk, or a package that is missing.
    """
    check_packages()
    import jinja2
    from markupsafe import Markup

    def visible(value: object) -> object:
        """Control characters of names would be sent as they are: escaping knows markup only."""
        return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "."), jinja2.PackageLoader("step.pages", ".")]),
        autoescape=True,
        finalize=visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(head=head, **values)
    with atomic_path(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def check_packages() -> None:
    """Checks that a page can be written.

    Raises:
        StepError: a package is missing.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise StepError("--html needs jinja2; install it with: pip install jinja2")


def format_date(date: datetime) -> str:
    """Writes a moment as pages show it, to the minute, in its own time zone."""
    return date.strftime("%Y-%m-%d %H:%M %Z").strip()
