"""Names from files as people see them."""

import io

import click
import pytest
from helpers import assert_one_error, run_command
from rich.table import Table

from step import StepError
from step.cli import OneLineCommand
from step.shown import make_console, quoted, shown, spreadsheet_cell

HOSTILE = "a\x1b[2J\x1b]0;PWNED\x07\u202egpj.exe\u2028\x9b\udcff"
HARMLESS = r"a\x1b[2J\x1b]0;PWNED\x07\u202egpj.exe\u2028\x9b\udcff"


def test_escapes():
    assert shown(HOSTILE) == HARMLESS
    for text in ("walk", "日本 é", "a/b c", "🙂"):
        assert shown(text) == text


def test_quoted_values_are_short():
    assert quoted("x") == "'x'"
    assert len(quoted("x" * 10_000)) < 210
    assert quoted(HOSTILE).isprintable()


def test_errors(capsys):
    @click.command(cls=OneLineCommand)
    def command() -> None:
        raise StepError(f"{HOSTILE}\n: no such file")

    done = run_command(command, capsys)
    assert_one_error(done, "PWNED.*: no such file")  # what separates lines is a space
    assert done[2].rstrip("\n").isprintable()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_tables_and_lines(is_terminal):
    """What the library writes itself, colours for one, is as it was."""
    file = io.StringIO()
    console = make_console(file=file, force_terminal=is_terminal, width=120)
    table = Table(title=f"t {HOSTILE[:-1]}")
    table.add_column("name", style="bold")
    table.add_row(HOSTILE[:-1])
    console.print(table)
    console.print(f"line {HOSTILE[:-1]}", markup=False)
    text = file.getvalue()
    assert "PWNED" in text
    assert "\x07" not in text
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text
    assert ("\x1b[1m" in text) == is_terminal
    assert "\u202e" not in text


def test_spreadsheets():
    for text in ("=1+1", "+1", "-1", "@a", "\t=1", "\r=1"):
        assert spreadsheet_cell(text) == "'" + text
    assert spreadsheet_cell("walk - slowly") == "walk - slowly"
