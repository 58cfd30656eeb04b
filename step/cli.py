"""What every command of the project shares: -v and -q, one line for what is wrong, examples (torch-free)."""

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from step.errors import ArgumentError, StepError
from step.memory import is_memory_shortage
from step.nearest import did_you_mean
from step.reporter import Reporter, Verbosity, libraries_heard
from step.revision import project_version

Options = TypeVar("Options")
_MOST_SAID = 200
_EXTRAS = {
    "torch": "export",
    "onnx": "export",
    "onnxscript": "export",
    "torchvision": "train",
    "lightning": "train",
    "lightning_fabric": "train",
    "yaml": "train",
    "openvino": "openvino",
    "matplotlib": "eval",
    "ray": "batch",
    "fsspec": "batch",
}
"""What the base install lacks, and the extra that has it."""
_UNITS = ("_s", "_mb", "_fps")  # of arguments; options go without
_REPORTER = "step.reporter"  # in the meta of click's contexts, which a command and its subcommand share
_RUN_ERROR, _USAGE_ERROR, _INTERRUPTED = 1, 2, 130  # exit codes


def print_error(message: str) -> None:
    """One line on standard error, never wrapped, so that it can be searched for and copied."""
    Reporter().error(message)


def find_reporter() -> Reporter:
    """Returns what the running command says things with, as -v and -q have it; a new one outside of commands."""
    context = click.get_current_context(silent=True)
    return Reporter() if context is None else _reporter_of(context)


def examples(*lines: str) -> str:
    """Returns the end of a command's help: examples, a line each, which click leaves as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


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


class OneLineCommand(click.Command):
    """A click command that answers bad input with one line on standard error; it takes -v and -q.

    The exit code is 2 for what was typed wrong, 1 for what goes wrong then. What the library says of its arguments
    (`ArgumentError`) is said of the command's options.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options()
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command.invoke`."""
        with _naming_options_of(self), _libraries_heard_by(ctx):
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.main`; click's own usage errors are shown the same way."""
        return _in_one_line(super().main, *args, **kwargs)


class OneLineGroup(click.Group):
    """The same for a command with subcommands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options()
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])

    def invoke(self, ctx: click.Context) -> Any:
        """See `OneLineCommand.invoke`; a subcommand has named its own options already."""
        with _naming_options_of(self), _libraries_heard_by(ctx):
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group.resolve_command`; of an unknown one the nearest is named."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise click.UsageError(f"no such command {name!r}{did_you_mean(name, self.commands)}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See `OneLineCommand.main`."""
        return _in_one_line(super().main, *args, **kwargs)


def _common_options() -> list[click.Parameter]:
    """Returns --version, and -v and -q, which are kept in the context; no command has to declare them."""
    return [
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity("verbose"),
            help="Say more on standard error.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity("quiet"),
            help="Say nothing but results and errors.",
        ),
    ]


def _print_version(context: click.Context, _parameter: click.Parameter, given: bool) -> None:
    if given:
        click.echo(f"step-trt {project_version()}")
        context.exit()


def _set_verbosity(verbosity: Verbosity) -> Callable[[click.Context, click.Parameter, bool], None]:
    def set_it(context: click.Context, _parameter: click.Parameter, given: bool) -> None:
        reporter = _reporter_of(context)
        if given and reporter.verbosity not in ("normal", verbosity):
            raise click.UsageError("--verbose and --quiet exclude each other; give one of them", context)
        if given:
            reporter.verbosity = verbosity

    return set_it


def _reporter_of(context: click.Context) -> Reporter:
    reporter = context.meta.setdefault(_REPORTER, Reporter())
    assert isinstance(reporter, Reporter)
    return reporter


def _libraries_heard_by(context: click.Context) -> contextlib.AbstractContextManager[None]:
    """Has the outermost command hear what libraries warn of."""
    return libraries_heard(_reporter_of(context)) if context.parent is None else contextlib.nullcontext()


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
        sys.exit(_USAGE_ERROR)
    except click.ClickException as error:
        print_error(error.format_message())
        sys.exit(_USAGE_ERROR if isinstance(error, click.UsageError) else _RUN_ERROR)
    except click.Abort:
        print_error("interrupted")
        sys.exit(_INTERRUPTED)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        print_error(f"this needs {error.name}, which is not installed; pip install 'step-trt[{extra}]'")
    except (MemoryError, RuntimeError, OSError, ImportError, SystemError) as error:
        if not is_memory_shortage(error):
            raise
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        print_error(f"not enough memory: {said[:_MOST_SAID]}; free some, raise the limit, or give smaller batches")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    sys.exit(_RUN_ERROR)


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
