"""What commands say while they work, in one style: results on standard output, everything else on standard error."""

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Literal, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from step.errors import StepError
from step.progress import Progress
from step.shown import make_console, shown

Verbosity = Literal["quiet", "normal", "verbose"]

LINE_EVERY_S = 5.0
"""Between lines of progress in a log."""

_REFRESHES_PER_S = 4
_FOR_PROGRAMMERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)


class Display(Protocol):
    """Shows how far some work is."""

    def renderable(self) -> RenderableType:
        """Returns what stands on a terminal, drawn again several times a second."""

    def line(self) -> str:
        """Returns one line for a log."""

    def last_line(self) -> str:
        """Returns the line of work that has ended, for a log that has had others of it."""


class Reporter:
    """Says what a command does; threads may share it.

    Args:
        verbosity: "quiet" leaves errors and results, "verbose" adds details.
        console: where all but results go. None takes standard error as it is when something is said.
        line_every_s: seconds between lines of progress in a log; None takes `LINE_EVERY_S`.
    """

    def __init__(
        self,
        verbosity: Verbosity = "normal",
        *,
        console: Console | None = None,
        line_every_s: float | None = None,
    ) -> None:
        self.verbosity = verbosity
        self._console = make_console(stderr=True) if console is None else console
        self._line_every_s = LINE_EVERY_S if line_every_s is None else line_every_s
        self._warned: set[str] = set()
        self._displays: list[Display] = []
        self._live: Live | None = None

    @property
    def on_terminal(self) -> bool:
        """Whether somebody watches: progress is a bar then, else lines."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def result(self, what: RenderableType) -> None:
        """Prints what the command was called for, on standard output; text is neither wrapped nor marked up.

        Raises:
            StepError: standard output cannot be written.
        """
        # Beside a bar on the same terminal, only the console that draws it prints above it.
        console = self._console if self._live is not None and sys.stdout.isatty() else make_console()
        try:
            if isinstance(what, str):
                console.print(what, soft_wrap=True, highlight=False, markup=False)
            else:
                console.print(what)
        except OSError as error:  # a file on a full disk; rich ends the command itself where a pipe is closed
            _discard_standard_output()
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise StepError(f"standard output cannot be written: {reason}; send it to another place") from error

    def note(self, line: str) -> None:
        """Says a line that everybody should see."""
        if self.verbosity != "quiet":
            self._say(Text(line))

    def detail(self, line: str) -> None:
        """Says a line that only those who ask for it (-v) should see."""
        if self.verbosity == "verbose":
            self._say(Text(line, style="dim"))

    def warning(self, text: str) -> None:
        """Says that something is not as it should be; the same text only once."""
        line = " ".join(text.split())
        if self.verbosity != "quiet" and line not in self._warned:
            self._warned.add(line)
            self._say(Text.assemble(("warning: ", "yellow"), line))

    def error(self, message: str) -> None:
        """Says what went wrong, in one line that is never wrapped, so that it can be searched for and copied."""
        self._say(Text.assemble(("error: ", "bold red"), shown(" ".join(message.split()))))

    @contextlib.contextmanager
    def progress(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Progress]:
        """Shows how far some work is: a bar on a terminal, a line every few seconds in a log, nothing if quiet.

        Args:
            description: what is done, such as "decoding clips".
            total: how much there is to do; None where nobody knows yet, or ever.
            unit: of the total, in the plural, such as "clips".

        Yields:
            What is told of every part that is done.
        """
        progress = Progress(description, total, unit)
        with self.showing(progress):
            yield progress

    @contextlib.contextmanager
    def showing(self, display: Display) -> Iterator[None]:
        """Shows something of one's own in the same way; several may be shown at a time."""
        if self.verbosity == "quiet":
            yield
        elif self.on_terminal:
            with self._as_bar(display):
                yield
        else:
            with self._in_lines(display):
                yield

    @contextlib.contextmanager
    def _as_bar(self, display: Display) -> Iterator[None]:
        self._displays.append(display)
        if self._live is None:
            self._live = Live(
                console=self._console,
                transient=True,
                refresh_per_second=_REFRESHES_PER_S,
                redirect_stdout=sys.stdout.isatty(),  # else results would go where the bar is
                get_renderable=lambda: Group(*(each.renderable() for each in list(self._displays))),
            )
            self._live.start()
        self._live.refresh()
        try:
            yield
        finally:
            self._displays.remove(display)
            self._live.refresh()
            if not self._displays:
                self._live.stop()
                self._live = None

    @contextlib.contextmanager
    def _in_lines(self, display: Display) -> Iterator[None]:
        ended = threading.Event()
        lines = 0

        def say_lines() -> None:
            nonlocal lines
            while not ended.wait(self._line_every_s):
                lines += 1
                self._say(Text(display.line()))

        thread = threading.Thread(target=say_lines, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if lines:
            self._say(Text(display.last_line()))

    def _say(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)


@contextlib.contextmanager
def libraries_heard(reporter: Reporter) -> Iterator[None]:
    """Has what libraries warn of, by Python's `warnings` or `logging`, said once each and in our style.

    What is addressed to programmers, such as that a function is deprecated, is said with -v only.
    """
    before = warnings.showwarning
    handler = _Handler(reporter)

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,  # noqa: ARG001 - Python calls it so
        lineno: int,  # noqa: ARG001
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        if reporter.verbosity == "verbose" or not issubclass(category, _FOR_PROGRAMMERS):
            reporter.warning(str(message))

    warnings.showwarning = show
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        warnings.showwarning = before


def _discard_standard_output() -> None:
    """Sends what is still to be written nowhere, so that Python does not try again, and complain, when it ends."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Handler(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.warning(record.getMessage())
