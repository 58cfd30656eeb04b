"""Attempts at a video: each is on disk before it begins, and a video that takes its worker down twice is set aside."""

import os
import time

from step.errors import StepError
from step_runtime.batch.messages import CannotGoOn, RunVideo, VideoDone, VideoFailed
from step_runtime.batch.output import Output
from step_runtime.batch.records import VideoRecord, file_key
from step_runtime.batch.video_list import Video
from step_runtime.batch.worker_process import Performer, WorkerDiedError

MOST_CRASHES = 2
"""After so many a video is set aside."""


class Attempts:
    """Runs videos on a worker, and keeps their records.

    A crash counts where somebody saw it: this supervisor its worker's, or the next one of the same run on the same node
    this supervisor's. When a whole run or a node is killed, nobody knows whether a video was at fault, and none counts.

    Args:
        output: where results and records go.
        performer: what runs videos.
        run: of which run this is.
        node: where it is.
        detections: whether every detection is kept.
    """

    def __init__(self, output: Output, performer: Performer, *, run: str, node: str, detections: bool) -> None:
        self._output = output
        self._performer = performer
        self._run = run
        self._node = node
        self._detections = detections

    def settle(self, video: Video) -> VideoRecord | CannotGoOn:
        """Runs a video if nobody has, until it is settled."""
        try:
            return self._settle(video)
        except StepError as error:  # the model does not open, or a record cannot be written
            return CannotGoOn(reason=str(error))

    def close(self) -> None:
        """Ends the worker."""
        self._performer.close()

    def _settle(self, video: Video) -> VideoRecord | CannotGoOn:
        record = self._find(video)
        while not record.is_settled:
            if record.crashes >= MOST_CRASHES:
                return self._keep(record, status="set aside")
            worker = self._performer.open()
            record = self._keep(record, status="begun", attempts=record.attempts + 1, worker=worker)
            start_s = time.monotonic()
            try:
                answer = self._performer.run(self._request(video))
            except WorkerDiedError as error:
                record = self._keep(record, crashes=record.crashes + 1, reason=f"its worker {error}")
                continue
            if isinstance(answer, CannotGoOn):
                return answer
            record = self._ended(record, answer, time.monotonic() - start_s)
        return record

    def _find(self, video: Video) -> VideoRecord:
        """The video's record as it is now; one that this run left begun on this node was left by a crash."""
        earlier = self._output.records.read(file_key(video.name))
        if earlier is None:
            return VideoRecord(name=video.name, location=video.shown, status="begun")
        if earlier.location != video.shown:
            raise StepError(
                f"{self._output.folder}: {video.name} is the name of {earlier.location}, and now of {video.shown}; "
                "run them into folders of their own"
            )
        if not earlier.is_settled and (earlier.run, earlier.node) == (self._run, self._node):
            return self._keep(earlier, crashes=earlier.crashes + 1, reason="its worker was lost")
        return earlier

    def _ended(self, record: VideoRecord, answer: VideoDone | VideoFailed, seconds: float) -> VideoRecord:
        if isinstance(answer, VideoFailed):
            return self._keep(record, status="failed", reason=answer.reason, seconds=seconds)
        return self._keep(
            record,
            status="done" if answer.problem is None else "partial",
            reason=answer.problem,
            **answer.model_dump(exclude={"kind", "problem"}),
        )

    def _keep(self, record: VideoRecord, **changes: object) -> VideoRecord:
        changed = record.model_copy(update={**changes, "run": self._run, "node": self._node})
        self._output.records.write(changed)
        return changed

    def _request(self, video: Video) -> RunVideo:
        return RunVideo(
            name=video.name,
            location_bytes=os.fsencode(video.location),
            people=self._output.people(video.name),
            detections=self._output.detections(video.name) if self._detections else None,
        )
