"""What a run says while it goes on: lines of JSON, TensorBoard, a live table or lines in a log.

Only the first of several processes logs.
"""

import contextlib
import json
import math
import time
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from step.errors import StepError
from step.evaluation.scoring import Score
from step.files.atomic import atomic_path, cannot_write
from step.progress import shown_time
from step.reporter import Reporter
from step.training.objectives.losses import StepLosses

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SHOWN_UPDATES = 20  # the live table's losses are means over so many


class RunLog:
    """Logs a run to its folder and to TensorBoard, and shows how far it is; it is a context manager and a `Display`.

    Args:
        folder: for log.jsonl and tensorboard/.
        total: updates of the whole run.
        done: updates before this process's first; what was logged after them is dropped.
        reporter: shows the live table, or lines in a log.
        is_first: of several processes; the others log nothing.
    """

    def __init__(self, folder: Path, *, total: int, done: int = 0, reporter: Reporter, is_first: bool) -> None:
        self.total, self._done = total, done
        self._is_first = is_first
        self._folder = folder
        self._recent: deque[list[list[float]]] = deque(maxlen=_SHOWN_UPDATES)
        self._scores: dict[int, float] = {}
        self._update, self._epoch, self._rate = done, 0, 0.0
        self._evaluated = ""
        self._began_s = time.monotonic()
        self._reporter = reporter
        self._shown = contextlib.ExitStack()
        self._lines: IO[str] | None = None
        self._board: SummaryWriter | None = None

    def __enter__(self) -> "RunLog":
        if not self._is_first:
            return self
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise StepError("training needs tensorboard; install it with: pip install 'step-trt[train]'") from error
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _drop_lines(self._folder / "log.jsonl", after=self._done)
            self._lines = (self._folder / "log.jsonl").open("a", encoding="utf-8")
            self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=self._done + 1)
        except OSError as error:
            raise cannot_write(self._folder, error) from error
        self._shown.enter_context(self._reporter.showing(self))
        return self

    def __exit__(self, *_exception: object) -> None:
        self._shown.close()
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()

    def losses(self, update: int, epoch: int, rate: float, losses: list[list[float]], *, waited_s: float = 0.0) -> None:
        """Writes one update: the values of `StepLosses` for each step; the rate is that of the heads' weights.

        `waited_s` is how long the update waited for its clips.
        """
        self._update, self._epoch, self._rate = update, epoch, rate
        self._recent.append(losses)
        names = StepLosses._fields
        by_step = {str(step): dict(zip(names, each, strict=True)) for step, each in enumerate(losses, 1)}
        self._line({"update": update, "epoch": epoch, "rate": rate, "loss": by_step, "waited_s": round(waited_s, 4)})
        for step, each in by_step.items():
            for name, value in each.items():
                self._scalar(f"{name}/step{step}", value, update)
        self._scalar("rate", rate, update)

    def scores(self, update: int, epoch: int, scores: dict[int, Score]) -> None:
        """Writes the scores of an evaluation, by step."""
        self._scores = {step: score.mean_ap(0.5) for step, score in scores.items()}
        if self._is_first:
            self._reporter.note(f"epoch {epoch + 1}, update {update}: frame-mAP@0.5 {self._score_words()}")
        classes = {
            str(step): {str(label): result.average_precision for label, result in score.results[0.5].items()}
            for step, score in scores.items()
        }
        means = {str(step): value for step, value in self._scores.items()}
        self._line({"update": update, "epoch": epoch, "mAP": means, "per_class": classes})
        for step, value in self._scores.items():
            self._scalar(f"mAP/step{step}", value, update)
        for step, score in scores.items():
            for label, result in score.results[0.5].items():
                self._scalar(f"AP/step{step}/{score.names[label]}", result.average_precision, update)

    def evaluating(self, done: int, total: int) -> None:
        """Shows in the live table how many clips of an evaluation are done."""
        self._evaluated = f"evaluating clip {done} of {total}" if done < total else ""

    def note(self, **values: Any) -> None:
        """Writes a line of something else."""
        self._line(values)

    def image(self, name: str, image: Any, update: int) -> None:
        """Writes an image, uint8 [H, W, 3] RGB, for TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, image, update, dataformats="HWC")

    def line(self) -> str:
        """Returns how far the run is, in words, with the sum of the last updates' mean losses and the latest mAP."""
        words = [self._title()]
        if self._recent:
            sums = [sum(sum(step) for step in each) for each in self._recent]
            words.append(f"loss {sum(sums) / len(sums):.4f}")
        if self._scores:
            words.append(f"frame-mAP@0.5 {self._score_words()}")
        return ", ".join(words)

    def last_line(self) -> str:
        """Returns the same of a run that has ended."""
        return self.line()

    def renderable(self) -> Group:
        """Makes the live table: how far the run is, and each step's mean losses of the last updates and latest mAP."""
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("step", *StepLosses._fields, "mAP"):
            table.add_column(column, justify="right")
        for step in range(len(self._recent[-1]) if self._recent else 0):
            means = [sum(each[step][i] for each in self._recent) / len(self._recent) for i in range(3)]
            score = f"{self._scores[step + 1]:.4f}" if step + 1 in self._scores else ""
            table.add_row(str(step + 1), *(f"{value:.4f}" for value in means), score)
        return Group(Text(self._title()), table)

    def _title(self) -> str:
        spent_s, done = time.monotonic() - self._began_s, self._update - self._done
        title = f"update {self._update} of {self.total}, epoch {self._epoch + 1}, rate {self._rate:.2g}"
        if self._evaluated:
            return f"{title}, {self._evaluated}"
        if not done:
            return title
        left_s = spent_s / done * (self.total - self._update)
        return f"{title}, {done / max(spent_s, 1e-3):.3g} updates/s, {shown_time(left_s)} left"

    def _score_words(self) -> str:
        return ", ".join(f"step {step} {value:.4f}" for step, value in self._scores.items())

    def _line(self, values: dict[str, Any]) -> None:
        if self._lines is not None:
            self._lines.write(json.dumps(values | {"time_s": round(time.monotonic() - self._began_s, 3)}) + "\n")
            self._lines.flush()

    def _scalar(self, name: str, value: float, update: int) -> None:
        if self._board is not None:
            self._board.add_scalar(name, value, update)


def _drop_lines(path: Path, *, after: int) -> None:
    """Drops what a log has after an update: a run that goes on from there says it again."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if after else []
    with atomic_path(path) as scratch:
        scratch.write_text("".join(line for line in lines if _update_of(line) <= after), encoding="utf-8")


def _update_of(line: str) -> float:
    """Returns a line's update: 0 for what belongs to none, infinite for a line that is damaged."""
    try:
        return float(json.loads(line).get("update", 0))
    except (ValueError, AttributeError, TypeError):
        return math.inf
