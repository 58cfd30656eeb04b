"""Threads of this process, for libraries that do not say how many they compute with."""

from pathlib import Path

_THREADS = Path("/proc/self/task")


def count_threads() -> int | None:
    """Counts the threads of this process; None where the system does not say.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_task.5.html.
    """
    try:
        return sum(1 for _ in _THREADS.iterdir())
    except OSError:
        return None
