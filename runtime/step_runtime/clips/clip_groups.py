"""Clips handed over several at a time, so that a call of the model may take them together."""

from collections.abc import Iterator

from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.clips.key_frame import Clip
from step_runtime.sources.base import SourceFrame


class ClipGroups:
    """Collects a source's clips in groups of a size; the last one is of what is left.

    Args:
        clips: makes clips of frames.
        size: clips of a group.
    """

    def __init__(self, clips: ClipBuffer, size: int) -> None:
        self._clips = clips
        self._size = size
        self._waiting: list[Clip] = []

    def add(self, frame: SourceFrame) -> Iterator[tuple[Clip, ...]]:
        """Takes the next frame; gives the groups that it completes."""
        yield from self._full(self._clips.add(frame))

    def finish(self) -> Iterator[tuple[Clip, ...]]:
        """What the end of the source completes."""
        yield from self._full(self._clips.finish())
        if self._waiting:
            yield self._take()

    def _full(self, clips: Iterator[Clip]) -> Iterator[tuple[Clip, ...]]:
        for clip in clips:
            self._waiting.append(clip)
            if len(self._waiting) == self._size:
                yield self._take()

    def _take(self) -> tuple[Clip, ...]:
        group, self._waiting = tuple(self._waiting), []
        return group
