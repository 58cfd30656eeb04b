"""What every command of the project shares (torch-free)."""

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from step.checkpoints.toy_model import find_bundle
from step.errors import ArgumentError, StepError
from step.memory import is_memory_shortage
from step.shown import make_console, shown

Options = TypeVar("Options")
_MOST_SAID = 200
_UNITS = ("_s", "_mb", "_fps")  # of arguments; options go without


def print_error(message: str) -> None:
    """One line on standard error, never wrapped, so that it can be searched for and copied."""
    line = shown(" ".join(message.split()))
    make_console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble(("error: ", "bold red"), line))


def progress_bar(console: Console) -> Progress:
    """Gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def takes(options: Callable[..., Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Has a command's function take one dataclass instead of a parameter for each of its options.

    Args:
        options: the dataclass; its fields are called like click's parameters.
    """

    def decorate(function: Callable[[Options], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def called(**values: Any) -> None:
            function(options(**values))

        return called

    return decorate


class BundlePath(click.Path):
    """A bundle folder as a command's parameter; `toy` is the one in the package."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        return find_bundle(str(super().convert(value, param, ctx)))


class OneLineCommand(click.Command):
    """A click command that answers bad input with one line on standard error and exit code 1.

    What the library says of its arguments (`ArgumentError`) is said of the command's options.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command.invoke`."""
        with _naming_options_of(self):
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.main`; click's own usage errors are shown the same way."""
        return _in_one_line(super().main, *args, **kwargs)


class OneLineGroup(click.Group):
    """The same for a command with subcommands."""

    def invoke(self, ctx: click.Context) -> Any:
        """See `OneLineCommand.invoke`; a subcommand has named its own options already."""
        with _naming_options_of(self):
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See `OneLineCommand.main`."""
        return _in_one_line(super().main, *args, **kwargs)


@contextlib.contextmanager
def _naming_options_of(command: click.Command) -> Iterator[None]:
    try:
        yield
    except ArgumentError as error:
        raise StepError(error.naming(_option_names(command))) from error


def _option_names(command: click.Command) -> dict[str, str]:
    """What the command calls the library's arguments: `num_steps` is --steps, `every_s` is --every."""
    names: dict[str, str] = {}
    for parameter in command.params:
        name = str(parameter.name)
        option = max(parameter.opts, key=len) if isinstance(parameter, click.Option) else name.upper()
        for argument in (f"num_{name}", *(name + unit for unit in _UNITS)):
            names.setdefault(argument, option)
        names[name] = option
    return names


def _in_one_line(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    before = _answer_like_ctrl_c() if _in_main_thread() else {}
    try:
        return run(*args, **{**kwargs, "standalone_mode": False})
    except StepError as error:
        print_error(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
    except click.ClickException as error:
        print_error(error.format_message())
    except click.Abort:
        print_error("interrupted")
        sys.exit(130)
    except (MemoryError, RuntimeError, OSError, ImportError, SystemError) as error:
        if not is_memory_shortage(error):
            raise
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        print_error(f"not enough memory: {said[:_MOST_SAID]}; free some, raise the limit, or give smaller batches")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    sys.exit(1)


def _answer_like_ctrl_c() -> dict[signal.Signals, Any]:
    """A polite request to end, or a terminal that goes away, ends in order: what was begun is cleaned up.

    What is ignored, as `nohup` has it, stays ignored. Returns the handlers that were there.
    """
    before: dict[signal.Signals, Any] = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows knows no hang-up
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, signal.default_int_handler)
    return before


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
