"""What a worker process and its supervisor say to each other: a line of JSON for each request and each answer."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from step.bundles.records import Record
from step_runtime.batch.options import WorkerOptions

WORKER = "step_runtime.batch.worker"
"""The module that a worker process runs."""


class Open(Record):
    """Open the model."""

    kind: Literal["open"] = "open"
    options: WorkerOptions


class RunVideo(Record):
    """Run a video, and publish its tables.

    Attributes:
        name: what results call it.
        location_bytes: path or URL; a path may hold bytes that are no UTF-8.
        people: the file of people; see `step_runtime.people.table`.
        detections: the file of every detection, as AVA's rows have it; None for none.
    """

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    kind: Literal["run_video"] = "run_video"
    name: str
    location_bytes: bytes
    people: Path
    detections: Path | None

    @property
    def location(self) -> str:
        """Path or URL."""
        return os.fsdecode(self.location_bytes)


class Opened(Record):
    """The model is open; what runs it."""

    kind: Literal["opened"] = "opened"
    backend: str
    device: str


class VideoDone(Record):
    """The tables of a video are in their places.

    Attributes:
        seconds: that it took.
        video_s: seconds of video that were decoded.
        clips: key frames that were detected on.
        dropped_clips: key frames that were not.
        people: counted again at every key frame.
        rows: of the table of people.
        problem: why it ended before the video's end; None where it did not.
    """

    kind: Literal["video_done"] = "video_done"
    seconds: float
    video_s: float
    clips: int
    dropped_clips: int
    people: int
    rows: int
    problem: str | None = None


class VideoFailed(Record):
    """The video cannot be run, which says nothing of the others."""

    kind: Literal["video_failed"] = "video_failed"
    reason: str


class CannotGoOn(Record):
    """No video can be run: the model does not open, or nothing can be written."""

    kind: Literal["cannot_go_on"] = "cannot_go_on"
    reason: str


Request = Open | RunVideo
Answer = Opened | VideoDone | VideoFailed | CannotGoOn
REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
ANSWERS: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])
