"""Processes in sessions of their own, which are ended with everything that they started."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from step.parent import child_command

_END_WAIT_S = 2.0


class Processes:
    """Keeps what is running; after `end_all` nothing is, and nothing begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_over = False

    def run(self, words: Sequence[str], log: Path, *, limit_s: float) -> tuple[int, bool]:
        """Runs a Python program with the modules that this one finds, until its end or a time limit.

        Args:
            words: its arguments, "-m" and a module first.
            log: takes its output.
            limit_s: seconds.

        Returns:
            Its exit code, and whether it was cut.

        Raises:
            OSError: the log cannot be written, or no process can be started.
        """
        with log.open("w") as file:
            process = self._start(child_command(*words[1:]), file.fileno())
            if process is None:
                return 0, True
            try:
                process.wait(limit_s)
                cut = False
            except subprocess.TimeoutExpired:
                cut = True
            finally:
                _end(process)
                self._running.discard(process)
        return process.returncode, cut

    def end_all(self) -> None:
        """Ends what is running, whoever waits for it."""
        with self._lock:
            self._is_over = True
            running = list(self._running)
        for process in running:
            _end(process)

    def _start(self, words: Sequence[str], output: int) -> "subprocess.Popen[bytes] | None":
        with self._lock:
            if self._is_over:
                return None
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
            self._running.add(process)
            return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_WAIT_S)
            if number == signal.SIGTERM:
                continue  # what it started may still be there
            return
