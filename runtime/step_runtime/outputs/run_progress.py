"""How far a run is, for the reporter."""

import time

from step.progress import Progress
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.clips.run_state import RunState
from step_runtime.sources.base import Source


class RunProgress:
    """Position in the source, key frames per second, lag and what was dropped.

    Args:
        progress: is told of it.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._start_s = time.monotonic()
        self._count = 0
        progress.update(status="waiting for the first clip")

    def update(self, source: Source, key_frame: KeyFrame, state: RunState) -> None:
        """One more key frame is done."""
        self._count += 1
        rate = self._count / max(time.monotonic() - self._start_s, 1e-3)
        status = f"{self._count} key frames, {rate:.2f}/s, lag {key_frame.lag_s:.1f} s"
        if source.is_live:
            status += f", {state.dropped_clips} clips dropped"
        total = None if source.duration_s is None else float(source.duration_s)
        self._progress.update(float(key_frame.time_s), total, status=status)
