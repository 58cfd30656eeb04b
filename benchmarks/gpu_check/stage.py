"""The inside of a stage's process: its options, its report, and how it ends."""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpu_check.results import Figure, StageResult, Status, write_record
from step.errors import StepError

Device = Literal["cuda", "none"]


class StageSkippedError(StepError):
    """Says why there is nothing to check here."""


@dataclass(frozen=True)
class StageOptions:
    """Holds what a stage is given.

    Attributes:
        device: "none" runs on the CPU or the stand-in, at small sizes.
        work: folder that the stages of one run share; each makes what it needs there, or finds it.
        deadline_s: of `time.monotonic`; what is not done by then is cut. A stage that can, ends before.
    """

    device: Device
    work: Path
    deadline_s: float

    @property
    def left_s(self) -> float:
        """Counts the seconds until the deadline."""
        return self.deadline_s - time.monotonic()


class Report:
    """Keeps a stage's figures and problems; each is on the disk at once, so that a stage that is cut keeps its own.

    Args:
        path: the JSON file.
        name: of the stage.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._start_s = time.monotonic()
        self._figures: list[Figure] = []
        self._problems: list[str] = []
        self.write("running")

    @property
    def is_good(self) -> bool:
        """Says whether nothing was wrong so far."""
        return not self._problems

    def figure(self, row: str, value: float | int | str, column: str = "", *, table: str = "") -> None:
        """Adds a figure; see `Figure`. What is no number, or infinite, becomes text, which JSON has."""
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        self._figures.append(Figure(table=table, row=row, column=column, value=value))
        self.write("running")

    def problem(self, text: str) -> None:
        """Notes that something is wrong; the stage goes on and will have failed."""
        self._problems.append(" ".join(text.split()))
        self.write("running")

    def check(self, condition: bool, text: str) -> bool:
        """Calls `problem` unless the condition holds; returns the condition."""
        if not condition:
            self.problem(text)
        return condition

    def write(self, status: Status) -> None:
        """Writes what there is."""
        result = StageResult(
            name=self._name,
            title="",
            command="",
            status=status,
            seconds=time.monotonic() - self._start_s,
            problems=tuple(self._problems),
            figures=tuple(self._figures),
        )
        write_record(result, self._path)


def run_stage(name: str, measure: Callable[[Report, StageOptions], None]) -> None:
    """Is the body of a stage's program: reads the command line, runs it, writes how it ended.

    An error that no stage expects ends the process with a traceback, which the runner keeps in the stage's log.

    Args:
        name: of the stage.
        measure: checks and measures; raises `StageSkippedError` or any other `StepError` to end early.
    """
    parser = argparse.ArgumentParser(prog=f"python -m gpu_check.stages.{name}")
    parser.add_argument("--device", choices=("cuda", "none"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"), help="folder for NAME.json")
    parser.add_argument("--work", type=Path, default=Path("build/gpu-check/work"), help="folder for what stages share")
    parser.add_argument("--seconds", type=float, default=600.0, help="time limit")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    report = Report(arguments.out / f"{name}.json", name)
    options = StageOptions(arguments.device, arguments.work, time.monotonic() + arguments.seconds)
    try:
        measure(report, options)
    except StageSkippedError as error:
        report.problem(str(error))
        report.write("skipped")
        return
    except StepError as error:
        report.problem(str(error))
    report.write("passed" if report.is_good else "failed")
    # Libraries with threads of their own may crash while they are torn down; everything is written by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if report.is_good else 1)
