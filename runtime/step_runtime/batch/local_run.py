"""Videos on this machine without Ray: some workers, each of which takes the next video when it is free."""

import queue
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence

from step.errors import StepError
from step_runtime.batch.attempts import Attempts
from step_runtime.batch.messages import CannotGoOn
from step_runtime.batch.output import Output
from step_runtime.batch.records import VideoRecord
from step_runtime.batch.video_list import Video
from step_runtime.batch.worker_process import Performer

_Outcome = VideoRecord | CannotGoOn | BaseException


def run_here(
    videos: Sequence[Video], output: Output, make: Callable[[], Performer], *, workers: int, detections: bool
) -> Iterator[VideoRecord]:
    """Runs videos; gives their records as they are settled.

    Args:
        videos: in the order in which they are begun.
        output: where results and records go.
        make: makes a worker.
        workers: how many run at a time.
        detections: whether every detection is kept.

    Raises:
        StepError: no video can be run: the model does not open, or nothing can be written. What is under way is left.
    """
    waiting = iter(videos)
    turn = threading.Lock()
    outcomes: queue.SimpleQueue[_Outcome | None] = queue.SimpleQueue()
    stopped = threading.Event()
    run = uuid.uuid4().hex
    attempts = [
        Attempts(output, make(), run=run, node=socket.gethostname(), detections=detections) for _ in range(workers)
    ]

    def work(own: Attempts) -> None:
        try:
            while not stopped.is_set():
                with turn:
                    video = next(waiting, None)
                if video is None:
                    return
                outcome = own.settle(video)
                outcomes.put(outcome)
                if isinstance(outcome, CannotGoOn):
                    stopped.set()
        except BaseException as error:  # noqa: BLE001 - it is not swallowed: the consumer raises it
            outcomes.put(error)
        finally:
            outcomes.put(None)

    threads = [threading.Thread(target=work, args=(own,), daemon=True) for own in attempts]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            outcome = outcomes.get()
            if outcome is None:
                running -= 1
            else:
                yield _record(outcome)
    finally:
        stopped.set()
        for own in attempts:
            own.close()  # what is under way ends with its process
        for thread in threads:
            thread.join()
        for own in attempts:
            own.close()  # a worker that was being started when its thread was told to stop


def _record(outcome: _Outcome) -> VideoRecord:
    if isinstance(outcome, BaseException):
        raise outcome
    if isinstance(outcome, CannotGoOn):
        raise StepError(outcome.reason)
    return outcome
