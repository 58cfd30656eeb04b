"""How far an archive is: videos, hours of video per hour, failures."""

import time
from collections import Counter
from collections.abc import Callable

from step.progress import Progress
from step_runtime.batch.records import VideoRecord

_HOUR_S = 3600


class BatchCounts:
    """What has become of the videos of this run.

    Args:
        clock: gives seconds.

    Attributes:
        by_status: videos that were settled now, by their status.
        video_s, clips, dropped_clips: seconds of video, key frames, and those left out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.by_status: Counter[str] = Counter()
        self.video_s = 0.0
        self.clips = self.dropped_clips = 0
        self._clock = clock
        self._start_s = clock()

    def add(self, record: VideoRecord) -> None:
        """Counts a video that was settled."""
        self.by_status[record.status] += 1
        self.video_s += record.video_s
        self.clips += record.clips
        self.dropped_clips += record.dropped_clips

    @property
    def videos(self) -> int:
        """Videos that were settled."""
        return self.by_status.total()

    @property
    def failed(self) -> int:
        """Videos that failed or were set aside."""
        return self.by_status["failed"] + self.by_status["set aside"]

    @property
    def elapsed_s(self) -> float:
        """Since the run began."""
        return max(self._clock() - self._start_s, 1e-6)

    def status(self) -> str:
        """Words behind the numbers of progress."""
        return f"{self.video_s / self.elapsed_s:.1f} h of video an hour, {self.failed} failed"

    def show(self, progress: Progress) -> None:
        """Tells the reporter."""
        progress.update(self.videos, status=self.status())

    def summary(self) -> str:
        """One line for the end."""
        parts = [f"{count} {status}" for status, count in self.by_status.items()]
        hours = self.video_s / _HOUR_S
        video = f"{self.video_s:.1f} s" if self.video_s < _HOUR_S else f"{hours:.1f} h"
        dropped = f", {self.dropped_clips} dropped" if self.dropped_clips else ""
        return (
            f"{self.videos} videos ({', '.join(parts) or 'none'}): {self.clips} key frames of {video} of video in "
            f"{self.elapsed_s:.1f} s, {self.video_s / self.elapsed_s:.1f} h of video an hour{dropped}"
        )
