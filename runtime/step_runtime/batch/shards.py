"""Shards: parts of an archive that processes do which do not know of each other, as those of an array job."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from step.errors import StepError
from step_runtime.batch.video_list import Video


@dataclass(frozen=True)
class Shard:
    """One of some parts.

    Attributes:
        index: which, from 0.
        count: of how many.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "INDEX/COUNT".

        Raises:
            StepError: it is something else.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isascii() and index.isdecimal() and count.isascii() and count.isdecimal()):
            raise StepError(f"--shard is {text!r}; give INDEX/COUNT such as 0/8")
        if int(index) >= int(count):
            raise StepError(f"--shard is {text!r}; shards count from 0, so the last of {count} is {int(count) - 1}")
        return cls(int(index), int(count))

    def take(self, videos: Iterable[Video]) -> list[Video]:
        """The videos of this shard: where each belongs depends on its location alone, not on what else is there."""
        return [video for video in videos if _number(video) % self.count == self.index]


def _number(video: Video) -> int:
    return int.from_bytes(hashlib.sha256(video.shown.encode()).digest()[:8])
