"""Calls of one model take turns, so that threads may share it."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from step.errors import StepError

MOST_BATCHES = 4
"""Numbers of clips that a model is prepared for at a time; each has memory of its own."""


CLOSED = "the model is closed; open it again"


class Turns:
    """Whoever calls a model from a thread waits until no other thread does; buffers are then the caller's.

    A process that was forked after the model was opened has none of the threads that the libraries compute with, and a
    call there would wait for them for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._thread_id: int | None = None  # whose turn it is
        self._is_closed = False

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """One call.

        Raises:
            StepError: this is another process than the one that opened the model.
            RuntimeError: the model was closed, or this thread is in the middle of another call, which a signal's
                handler or a callback interrupted.
        """
        if os.getpid() != self._process_id:
            raise StepError(
                f"the model was opened in process {self._process_id}, of which this one was forked; open it here, or "
                "start processes with the method 'spawn'"
            )
        with self._entered():
            if self._is_closed:
                raise RuntimeError(CLOSED)
            yield

    def close(self, free: Callable[[], None]) -> None:
        """Frees the model after the call that is under way.

        Nothing happens the second time, and in a process that was forked: what it would free is its parent's.

        Raises:
            RuntimeError: see `taken`.
        """
        if os.getpid() != self._process_id:
            return
        with self._entered():
            if not self._is_closed:
                self._is_closed = True
                free()

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        thread_id = threading.get_ident()
        if self._thread_id == thread_id:  # waiting would be for ever, and going on would spoil the other call
            raise RuntimeError("the model is called in the middle of another call of the same thread; call it after")
        with self._lock:
            self._thread_id = thread_id
            try:
                yield
            finally:
                self._thread_id = None
