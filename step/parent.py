"""Processes that end with the one that started them, however it ends (torch-free).

`python -m step.parent PID MODULE [ARGUMENTS]` runs a module so; `child_command` writes it.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_PAUSE_S = 1.0


def child_command(module: str, *arguments: str) -> list[str]:
    """The words that run a module of ours in a process which ends with this one."""
    return [sys.executable, "-m", "step.parent", str(os.getpid()), module, *arguments]


def end_with_parent(parent_id: int) -> None:
    """Has the system kill this process when its parent has ended; the first thing that a child does.

    On Linux it is the end of the thread that started the child that counts. Elsewhere a thread looks every second, and
    on Windows nothing is done.

    Args:
        parent_id: of the process that started this one.

    Source: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _end_if_alone(parent_id)  # it may have ended before
    elif sys.platform != "win32":
        threading.Thread(target=_watch, args=(parent_id,), daemon=True).start()


def _watch(parent_id: int) -> None:
    while True:
        _end_if_alone(parent_id)
        time.sleep(_PAUSE_S)


def _end_if_alone(parent_id: int) -> None:
    if os.getppid() != parent_id:
        os._exit(1)


def main() -> None:
    """See the module."""
    parent_id, module, *arguments = sys.argv[1:]
    end_with_parent(int(parent_id))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
