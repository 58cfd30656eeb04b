"""Where the clips of several requests meet on their way to the model."""

import threading
from collections import deque
from dataclasses import dataclass

from step_runtime.clips.channel import Stopped
from step_runtime.clips.key_frame import Clip


@dataclass(frozen=True)
class RequestClip:
    """A clip and the request that it is of, by its place among those that are answered together."""

    request: int
    clip: Clip


class ClipQueue:
    """A bounded queue from one reader for each request to one consumer, which takes as many clips at once as it can.

    Args:
        readers: how many requests there are; each reader calls `end` once.
        at_most: clips that the consumer takes at once; as many wait, while it works on those that it took.
    """

    def __init__(self, *, readers: int, at_most: int) -> None:
        self._readers, self._at_most = readers, at_most
        self._items: deque[RequestClip] = deque()
        self._changed = threading.Condition()
        self._stopped = False

    def put(self, item: RequestClip) -> None:
        """Hands over a clip, waiting for room.

        Raises:
            Stopped: the consumer wants no more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._at_most)
            if self._stopped:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """Says that one request has no more clips."""
        with self._changed:
            self._readers -= 1
            self._changed.notify_all()

    def take(self) -> list[RequestClip]:
        """Returns `at_most` clips, or those that are left when all readers have come to their end; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._readers or len(self._items) >= self._at_most)
            taken = [self._items.popleft() for _ in range(min(self._at_most, len(self._items)))]
            self._changed.notify_all()
        return taken

    def stop(self) -> None:
        """Says that the consumer wants no more; readers learn it at their next `put`."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()
