"""The parent's side of a worker: one process for each way, so that a crash takes its own row only."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from step.errors import StepError
from step.parent import child_command
from step_runtime.benchmark.configurations import Way


class WorkerProcess:
    """A started worker; a context manager that ends it.

    Args:
        way: what it loads.
        clips: .npy file of uint8 [B, F, H, W, 3], repeated or cut to the way's batch.

    Raises:
        StepError: the way cannot run here; the message says why.
    """

    def __init__(self, way: Way, clips: Path) -> None:
        self._errors, name = tempfile.mkstemp(prefix="step-bench-", suffix=".log")
        self._error_file = Path(name)
        self._process = subprocess.Popen(
            child_command("step_runtime.benchmark.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            told = self._ask({"way": way.to_dict(), "clips": str(clips)})
        except BaseException:
            self.close()
            raise
        self.device: str = told["device"]
        self.gpu: int | None = told["gpu"]
        self.model_bytes: int = told["model_bytes"]
        self.build_s: float | None = told["build_s"]
        self.load_s: float = told["load_s"]
        self.first_s: float = told["first_s"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def time_calls(self, count: int) -> list[float]:
        """Seconds of so many calls, one after the other.

        Raises:
            StepError: the call failed, or the process ended.
        """
        times_s: list[float] = self._ask({"calls": count})["times_s"]
        return times_s

    def mean_ap(self, data: Path, split: str, cache: Path) -> float:
        """frame-mAP at 0.5 on a data set; decoded clips are kept in the folder `cache`.

        Raises:
            StepError: what `write_results` refuses, or the process ended.
        """
        value: float = self._ask({"data": str(data), "split": split, "cache": str(cache)})["mean_ap"]
        return value

    def memory(self) -> dict[str, int | None]:
        """Largest memory so far, host_bytes and device_bytes (None where nothing says).

        Raises:
            StepError: the process ended.
        """
        return self._ask({"memory": True})

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

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise StepError(self._how_it_ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise StepError(answer["error"])
        return answer

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        printed = self._error_file.read_text(encoding="utf-8", errors="replace")
        last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"its process {how}: {last}" if last else f"its process {how}"
