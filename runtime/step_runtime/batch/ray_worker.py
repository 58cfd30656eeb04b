"""What a Ray actor does: takes videos as rows, and gives their records as rows. Ray itself is not imported here."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from step_runtime.batch.attempts import Attempts
from step_runtime.batch.messages import CannotGoOn
from step_runtime.batch.options import WorkerOptions
from step_runtime.batch.output import Output
from step_runtime.batch.video_list import Video
from step_runtime.batch.worker_process import Performer, WorkerProcess

Row = dict[str, Any]
NAME, LOCATION, RECORD, PROBLEM = "name", "location", "record", "problem"
"""Columns of the rows: a video's, and the JSON of its record or else why nothing can go on."""


class RayWorker:
    """A class for `ray.data.Dataset.map`: each actor has one, and each one a worker process with a `Detector`.

    Args:
        output: folder of the results, which all nodes see under this path.
        run: of which run this is.
        detections: whether every detection is kept.
        make: makes what runs the videos; it is called in the actor.
        node: says which node this is; it is called in the actor.

    Source: https://docs.ray.io/en/latest/data/transforming-data.html#stateful-transforms.
    """

    def __init__(
        self, output: Path, run: str, detections: bool, make: Callable[[], Performer], node: Callable[[], str]
    ) -> None:
        # A thread of its own: the worker process ends with the thread that started it, and Ray's come and go.
        self._thread = ThreadPoolExecutor(1)
        self._attempts = Attempts(Output(output), make(), run=run, node=node(), detections=detections)

    def __call__(self, row: Row) -> Row:
        """Settles one video."""
        video = Video(name=row[NAME], location=row[LOCATION].decode("utf-8", "surrogateescape"))
        outcome = self._thread.submit(self._attempts.settle, video).result()
        if isinstance(outcome, CannotGoOn):
            return {RECORD: None, PROBLEM: outcome.reason}
        return {RECORD: outcome.model_dump_json(), PROBLEM: None}


class ProcessMaker:
    """Makes worker processes; it can be sent to an actor.

    Args:
        options: what they open.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options

    def __call__(self) -> Performer:
        """A new one, which starts when it is needed."""
        return WorkerProcess(self._options)
