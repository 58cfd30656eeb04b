"""The supervisor's side of a worker process: started when it is needed, and again after a crash."""

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

from step.errors import StepError
from step.parent import child_command
from step_runtime.batch.messages import (
    ANSWERS,
    WORKER,
    Answer,
    CannotGoOn,
    Open,
    Opened,
    Request,
    RunVideo,
    VideoDone,
    VideoFailed,
)
from step_runtime.batch.options import WorkerOptions


class WorkerDiedError(Exception):
    """A worker ended while it ran a video; the message says how."""


class Performer(Protocol):
    """What runs videos: a `WorkerProcess`, or what stands for one in a simulation."""

    def open(self) -> str:
        """Gets ready where it is not; says what runs the model.

        Raises:
            StepError: no video can be run.
        """

    def run(self, request: RunVideo) -> VideoDone | VideoFailed | CannotGoOn:
        """Runs a video.

        Raises:
            WorkerDiedError: it ended in the middle.
        """

    def close(self) -> None:
        """Ends it."""


class WorkerProcess:
    """A `Performer` that is a process; see `step_runtime.batch.worker`.

    The thread that opens it has to live as long as it: on Linux a process ends with the thread that started it.

    Args:
        options: what it opens.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._opened: Opened | None = None
        descriptor, name = tempfile.mkstemp(prefix="step-batch-", suffix=".log")
        self._errors, self._error_file = descriptor, Path(name)

    @property
    def process_id(self) -> int | None:
        """The process's; None where none runs."""
        return None if self._process is None else self._process.pid

    def open(self) -> str:
        """See `Performer.open`."""
        if self._process is None or self._opened is None:
            os.ftruncate(self._errors, 0)
            self._process = subprocess.Popen(
                child_command(WORKER),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                process_group=0,  # Ctrl-C is for the supervisor
            )
            try:
                answer = self._ask(Open(options=self._options))
            except WorkerDiedError as error:
                raise StepError(f"a worker {error}, before it had opened the model") from error
            if isinstance(answer, CannotGoOn):
                raise StepError(answer.reason)
            assert isinstance(answer, Opened)
            self._opened = answer
        return f"{self._opened.backend} on {self._opened.device.removesuffix('ExecutionProvider')}"

    def run(self, request: RunVideo) -> VideoDone | VideoFailed | CannotGoOn:
        """See `Performer.run`."""
        answer = self._ask(request)
        assert not isinstance(answer, Opened)
        return answer

    def close(self) -> None:
        """See `Performer.close`; whatever it does is left off."""
        self._end()
        if self._error_file.exists():
            os.close(self._errors)
            self._error_file.unlink()

    def _ask(self, request: Request) -> Answer:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request.model_dump_json() + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            how = self._how_it_ended(process)
            self._end()
            raise WorkerDiedError(how)
        return ANSWERS.validate_json(line)

    def _how_it_ended(self, process: subprocess.Popen[str]) -> str:
        code = process.wait()
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        printed = self._error_file.read_text(encoding="utf-8", errors="replace")
        last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
        return f"ended with {code}: {last}" if last else f"ended with {code}"

    def _end(self) -> None:
        process, self._process, self._opened = self._process, None, None
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # a line that was never read is flushed once more
                    stream.close()
