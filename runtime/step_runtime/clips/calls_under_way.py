"""Calls of the model under way for one source, whose results become key frames in order."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from step_runtime.backends.calls import Call
from step_runtime.clips.key_frame import Clip, KeyFrame, KeyMoment
from step_runtime.clips.run_state import RunState
from step_runtime.clips.starters import Starter

Item = TypeVar("Item")


class CallsUnderWay(Generic[Item]):
    """Starts the calls of what was collected, and takes their results when there is no reason to wait longer.

    Args:
        starter: how items become calls.
        video: name of the source.
        depth: calls that the backend takes before it wants a result taken.
        state: is kept up to date.
    """

    def __init__(self, starter: Starter[Item], *, video: str, depth: int, state: RunState) -> None:
        self._starter = starter
        self._video = video
        self._depth = depth
        self._state = state
        self._dropped_before = state.dropped_clips
        self._calls: deque[tuple[Clip | KeyMoment, Call]] = deque()

    def take(self, item: Item, *, has_more: Callable[[], bool]) -> Iterator[KeyFrame]:
        """Starts the calls of an item.

        Args:
            item: what the starter takes.
            has_more: whether another item is there already.

        Yields:
            The key frames whose results are taken: where the backend has no room for another call, or nothing waits.
        """
        for started in self._starter.start(item):
            if started.call is not None:
                self._calls.append((started.moment, started.call))
            self.count_dropped()
            while len(self._calls) >= self._depth or (self._calls and started.is_last and not has_more()):
                yield self._finish(*self._calls.popleft())

    def rest(self) -> Iterator[KeyFrame]:
        """The key frames whose results were not taken yet."""
        while self._calls:
            yield self._finish(*self._calls.popleft())

    def count_dropped(self) -> None:
        """Tells the state how many key frames were left out until now."""
        self._state.dropped_clips = self._dropped_before + self._starter.dropped

    def _finish(self, moment: Clip | KeyMoment, call: Call) -> KeyFrame:
        with self._state.inference():
            detections = call.result()
        return KeyFrame.of(moment, detections, video=self._video, config=self._starter.config)
