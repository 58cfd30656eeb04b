"""How far some work is, in words and as a bar (torch-free)."""

import threading
import time
from collections.abc import Callable

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_BAR_WIDTH = 30


class Progress:
    """Counts what is done of some work; threads may share it.

    Args:
        description: what is done.
        total: how much there is to do; None where nobody knows.
        unit: of the total, in the plural.
        clock: gives seconds.
    """

    def __init__(
        self,
        description: str,
        total: float | None = None,
        unit: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0.0
        self.status = ""
        self._clock = clock
        self._began_s = self._part_began_s = clock()
        self._turn = threading.Lock()

    def update(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        description: str | None = None,
        status: str | None = None,
    ) -> None:
        """Says how much is done of how much.

        Args:
            done: from the start; None leaves it as it is.
            total: None leaves it as it is.
            description: of what is done now; another one begins a part with a rate of its own. None leaves it as it is.
            status: words behind the numbers, such as "loss 0.123"; None leaves them as they are.
        """
        with self._turn:
            self.done = self.done if done is None else done
            self.total = self.total if total is None else total
            if description is not None and description != self.description:
                self.description, self._part_began_s = description, self._clock()
            self.status = self.status if status is None else status

    def advance(self, count: float = 1) -> None:
        """Says that so much more is done."""
        with self._turn:
            self.done += count

    def line(self) -> str:
        """Returns for example "decoding clips: 120 of 480 clips, 12.3 clips/s, 0:29 left"."""
        return self._described(self._words())

    def last_line(self) -> str:
        """Returns for example "decoding clips: 480 clips in 0:39, 12.3 clips/s"."""
        if not self.done:
            return self._described([f"ended after {shown_time(self._clock() - self._began_s)}"])
        spent_s = self._clock() - self._part_began_s
        ended = f"{_amount(self.done)}{self._unit} in {shown_time(spent_s)}"
        return self._described([ended, *self._rate(spent_s), *filter(None, [self.status])])

    def renderable(self) -> RenderableType:
        """Returns a bar with the same words."""
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self.total, completed=self.done, width=_BAR_WIDTH, pulse=self.total is None)
        row.add_row(Text(self.description), bar, Text(", ".join(self._words())))
        return row

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def _described(self, words: list[str]) -> str:
        return f"{self.description}: {', '.join(words)}"

    def _words(self) -> list[str]:
        spent_s = self._clock() - self._part_began_s
        words = []
        if self.total is not None:
            words.append(f"{_amount(self.done)} of {_amount(self.total)}{self._unit}")
        elif self.done:
            words.append(f"{_amount(self.done)}{self._unit}")
        words += self._rate(spent_s)
        if self.total is not None and self.done:
            words.append(f"{shown_time(max(self.total - self.done, 0) * spent_s / self.done)} left")
        else:
            words.append(f"{shown_time(self._clock() - self._began_s)} so far")
        return [*words, *filter(None, [self.status])]

    def _rate(self, spent_s: float) -> list[str]:
        if not self.done or spent_s <= 0:
            return []
        rate = self.done / spent_s
        return [f"{rate:.0f}{self._unit}/s" if rate >= 100 else f"{rate:.3g}{self._unit}/s"]


def _amount(count: float) -> str:
    return str(int(count)) if count == int(count) else f"{count:.1f}"


def shown_time(duration_s: float) -> str:
    """Returns minutes and seconds as people see them, such as 1:05, with hours in front of them where there are any."""
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
