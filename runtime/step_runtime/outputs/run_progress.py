"""How far a run is: a bar on a terminal, a line every few seconds in a log."""

import time
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from step_runtime.clips.key_frame import KeyFrame
from step_runtime.clips.run_state import RunState
from step_runtime.sources.base import Source

LINE_EVERY_S = 10.0
"""Between lines in a log."""


class RunProgress:
    """Position in the source, key frames per second, lag and what was dropped; a context manager.

    Args:
        console: a terminal, or what leads to a log.
        name: of the source.
        line_every_s: seconds between lines in a log.
    """

    def __init__(self, console: Console, name: str, *, line_every_s: float = LINE_EVERY_S) -> None:
        self._console = console
        self._name = name
        self._line_every_s = line_every_s
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(escape(name), total=None, status="waiting for the first clip")
        self._start_s = self._line_at_s = time.monotonic()
        self._count = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def update(self, source: Source, key_frame: KeyFrame, state: RunState) -> None:
        """One more key frame is done."""
        self._count += 1
        now_s = time.monotonic()
        status = f"{self._count / (now_s - self._start_s):.2f} key frames/s, lag {key_frame.lag_s:.1f} s"
        if source.is_live:
            status += f", {state.dropped_clips} clips dropped"
        if self._console.is_terminal:
            total = None if source.duration_s is None else float(source.duration_s)
            self._progress.update(self._task, total=total, completed=float(key_frame.time_s), status=status)
        elif now_s - self._line_at_s >= self._line_every_s:
            self._line_at_s = now_s
            whole = "" if source.duration_s is None else f" of {float(source.duration_s):.1f}"
            self.say(f"{self._name}: {float(key_frame.time_s):.1f}{whole} s, {self._count} key frames, {status}")
