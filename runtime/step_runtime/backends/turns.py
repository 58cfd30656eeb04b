"""Calls of one model take turns, so that threads may share it."""

import contextlib
import os
import threading
from collections.abc import Iterator

from step.errors import StepError

MOST_BATCHES = 4
"""Numbers of clips that a model is prepared for at a time; each has memory of its own."""


class Turns:
    """Whoever calls a model from a thread waits until no other thread does; buffers are then the caller's.

    A process that was forked after the model was opened has none of the threads that the libraries compute with, and a
    call there would wait for them for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process_id = os.getpid()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """One call.

        Raises:
            StepError: this is another process than the one that opened the model.
        """
        if os.getpid() != self._process_id:
            raise StepError(
                f"the model was opened in process {self._process_id}, of which this one was forked; open it here, or "
                "start processes with the method 'spawn'"
            )
        with self._lock:
            yield
