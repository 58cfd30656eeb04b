"""A bounded hand-over between two threads, which also carries the end, a failure and the wish to stop."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - a wish, not an error
    """The other side no longer wants items; raised in the producer to end it."""


class Channel(Generic[T]):
    """A queue with one producer and one consumer.

    Args:
        capacity: items that may wait.
        drop_oldest: a full channel drops its oldest item instead of making the producer wait (live sources).
        drop_runs: a full channel drops what comes until it is empty, so that items without a gap between them come
            through, at least `capacity` at a time (live sources whose items need their neighbours).
    """

    def __init__(self, *, capacity: int, drop_oldest: bool = False, drop_runs: bool = False) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._drop_oldest = drop_oldest
        self._drop_runs = drop_runs
        self._dropping = False
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False
        self._failure: BaseException | None = None
        self.dropped = 0

    def put(self, item: T) -> None:
        """Hands over an item, waiting for room.

        Raises:
            Stopped: the consumer has stopped.
        """
        with self._changed:
            if self._drop_oldest and len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            if self._drop_runs and (self._dropping or len(self._items) >= self._capacity):
                self._dropping = bool(self._items)
                if self._dropping and not self._stopped:
                    self.dropped += 1
                    return
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._capacity)
            if self._stopped:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def end(self, failure: BaseException | None = None) -> None:
        """No more items; `failure` is raised in the consumer after those that wait."""
        with self._changed:
            self._ended = True
            self._failure = failure
            self._changed.notify_all()

    def stop(self) -> None:
        """The consumer wants no more: what waits is dropped and the producer learns it at its next `put`."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Whether an item, or the end, is there within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._items or self._ended or self._stopped), timeout_s)

    @property
    def has_waiting(self) -> bool:
        """Whether the next item is there already."""
        with self._changed:
            return bool(self._items)

    def __iter__(self) -> Iterator[T]:
        """The items, until the end.

        Raises:
            BaseException: what the producer failed with.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended or self._stopped)
                if not self._items:
                    if self._failure is not None:
                        raise self._failure
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
