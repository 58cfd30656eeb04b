"""Follows a build of the library, and ends it where that is asked for; `builder` names the documentation."""

import threading
from collections.abc import Callable
from typing import Any


def make_monitor(trt: Any, report: Callable[[str, float], None], cancelled: Callable[[], bool]) -> Any:
    """Makes a progress monitor.

    Args:
        trt: the library.
        report: is called with the innermost phase and how much of the whole build is done, 0 to 1.
        cancelled: asked at every step; True ends the build.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the library is untyped
        def __init__(self) -> None:
            super().__init__()
            self._phases: dict[str, tuple[int, int]] = {}  # steps done and steps in all, outermost first
            self._furthest = 0.0
            self._lock = threading.Lock()  # the library may call from threads of its own

        def phase_start(self, phase_name: str, _parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (0, max(num_steps, 1))
                report(phase_name, self._fraction())

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    self._phases[phase_name] = (step + 1, self._phases[phase_name][1])
                    report(phase_name, self._fraction())
            return not cancelled()

        def _fraction(self) -> float:
            """Returns the share that is done; every phase is one step of the phase around it."""
            done, share = 0.0, 1.0
            for step, steps in self._phases.values():
                share /= steps
                done += share * step
            # Between a phase's end and the step that it was, its share is missing; a bar does not go back for that.
            self._furthest = max(self._furthest, min(done, 1.0))
            return self._furthest

    return Monitor()
