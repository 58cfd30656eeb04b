"""The parent's side of a worker: one process for each configuration, so that a crash takes its own row only."""

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self, TypeVar

from pydantic import ValidationError

from step.errors import StepError
from step.parent import child_command
from step.shown import quoted
from step_runtime.benchmark.configurations import BenchConfiguration
from step_runtime.benchmark.messages import (
    ANSWERS,
    WORKER,
    Failed,
    Load,
    Loaded,
    MeanAp,
    Memory,
    Request,
    ScoreData,
    TellMemory,
    TimeCalls,
    Times,
)

Wanted = TypeVar("Wanted", Loaded, Times, MeanAp, Memory)
_LONGEST_SAID = 100


class WorkerProcess:
    """A started worker; a context manager that ends it.

    Args:
        configuration: what it loads.
        clips: .npy file of uint8 [B, F, H, W, 3], repeated or cut to the configuration's batch.

    Attributes:
        loaded: what the process said when it had loaded it.

    Raises:
        StepError: the configuration cannot run here; the message says why.
    """

    def __init__(self, configuration: BenchConfiguration, clips: Path) -> None:
        self._errors, name = tempfile.mkstemp(prefix="step-bench-", suffix=".log")
        self._error_file = Path(name)
        self._process = subprocess.Popen(
            child_command(WORKER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            process_group=0,  # Ctrl-C is for the benchmark, which ends its workers when it has what it wants of them
        )
        try:
            self.loaded = self._ask(Load(configuration=configuration, clips=clips), Loaded)
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """The process's."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def time_calls(self, count: int) -> list[float]:
        """Seconds of so many calls, one after the other.

        Raises:
            StepError: the call failed, or the process ended.
        """
        return self._ask(TimeCalls(count=count), Times).times_s

    def mean_ap(self, data: Path, split: str, cache: Path) -> float:
        """frame-mAP at 0.5 on a data set; decoded clips are kept in the folder `cache`.

        Raises:
            StepError: what `write_results` refuses, or the process ended.
        """
        return self._ask(ScoreData(data=data, split=split, cache=cache), MeanAp).mean_ap

    def memory(self) -> Memory:
        """Largest memory so far.

        Raises:
            StepError: the process ended.
        """
        return self._ask(TellMemory(), Memory)

    def close(self) -> None:
        """Ends the process, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # a line that was never read is flushed once more
                    stream.close()
        if self._error_file.exists():
            os.close(self._errors)
            self._error_file.unlink()

    def _ask(self, request: Request, expected: type[Wanted]) -> Wanted:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request.model_dump_json() + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise StepError(self._how_it_ended())
        try:
            answer = ANSWERS.validate_json(line)
        except ValidationError as error:
            raise StepError(f"its process said {quoted(line.strip()[:_LONGEST_SAID])}, which is no answer") from error
        if isinstance(answer, Failed):
            raise StepError(answer.problem)
        if not isinstance(answer, expected):
            raise StepError(f"its process answered with {answer.kind}, not {expected.__name__}")
        return answer

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        printed = self._error_file.read_text(encoding="utf-8", errors="replace")
        last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"its process {how}: {last}" if last else f"its process {how}"
