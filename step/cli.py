"""What every command of the project shares (torch-free)."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import click
from rich.console import Console
from rich.text import Text

from step.errors import StepError

P = ParamSpec("P")


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turns `StepError` into one line on standard error and exit code 1."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StepError as error:
            print_error(str(error))
            sys.exit(1)
        except BrokenPipeError:
            sys.exit(1)

    return wrapper


def print_error(message: str) -> None:
    """One red line on standard error, never wrapped, so that it can be searched for and copied."""
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble(("error: ", "bold red"), line))


class OneLineCommand(click.Command):
    """A click command whose usage errors also exit with code 1."""

    def main(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        try:
            return super().main(*args, **(kwargs | {"standalone_mode": False}))  # type: ignore[arg-type]
        except click.ClickException as error:
            print_error(error.format_message())
            sys.exit(1)
        except click.Abort:
            print_error("interrupted")
            sys.exit(130)
