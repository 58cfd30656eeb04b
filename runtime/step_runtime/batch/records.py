"""The record of a video: what has become of it, a small file that is replaced in one step whenever that changes."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import ValidationError

from step.bundles.records import Record
from step.files.atomic import atomic_path

Status = Literal["begun", "done", "partial", "failed", "set aside"]
SETTLED: tuple[Status, ...] = ("done", "partial", "failed", "set aside")
"""What is not done again."""

_LONGEST_KEY = 180  # bytes; file systems take names of 255
_FOLDER_DIGITS = 2
_SUFFIX = ".json"


class VideoRecord(Record):
    """What has become of a video.

    Attributes:
        name, location: see `Video`; without a password.
        status: "begun" is under way, or was when its worker was lost; "partial" ended before the video's end, and what
            came before is kept; "set aside" took its worker down too often.
        reason: why it is not "done", in one line.
        run: the run that wrote this.
        node: where it was begun, such as a Ray node's id.
        attempts: how often it was begun.
        crashes: how often somebody saw it take its worker down.
        worker: what ran it, such as "onnxruntime on CPU".
        seconds, video_s, clips, dropped_clips, people, rows: see `VideoDone`.
    """

    name: str
    location: str
    status: Status
    reason: str | None = None
    run: str = ""
    node: str = ""
    attempts: int = 0
    crashes: int = 0
    worker: str = ""
    seconds: float = 0.0
    video_s: float = 0.0
    clips: int = 0
    dropped_clips: int = 0
    people: int = 0
    rows: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to be done."""
        return self.status in SETTLED


def file_key(name: str) -> str:
    """A file name for a video's name: the same where that can be, escaped where not, cut where it is too long."""
    encoded = name.encode()
    key = quote(encoded, safe=" ,;=@+()[]'&!")
    if len(key) <= _LONGEST_KEY:
        return key
    return f"{key[:_LONGEST_KEY]}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def key_folder(key: str) -> str:
    """One of 256 folders for a key, so that none gets too many files."""
    return hashlib.sha256(key.encode()).hexdigest()[:_FOLDER_DIGITS]


class RecordStore:
    """The records of an output folder.

    Args:
        folder: where they are; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """The file of a key; see `file_key`."""
        return self.folder / key_folder(key) / f"{key}{_SUFFIX}"

    def read(self, key: str) -> VideoRecord | None:
        """A video's record; None where there is none, or none that can be read, as after a power cut."""
        try:
            return VideoRecord.model_validate(json.loads(self.path(key).read_bytes()))
        except (OSError, ValueError, RecursionError, ValidationError):
            return None

    def write(self, record: VideoRecord) -> None:
        """Replaces a video's record.

        Raises:
            StepError: it cannot be written.
        """
        with atomic_path(self.path(file_key(record.name))) as path:
            path.write_text(record.model_dump_json() + "\n")

    def list_keys(self) -> Iterator[str]:
        """The keys of all records, as the folders list them."""
        if not self.folder.is_dir():
            return
        for part in sorted(self.folder.iterdir()):
            if part.is_dir():
                with os.scandir(part) as entries:
                    yield from sorted(
                        entry.name.removesuffix(_SUFFIX) for entry in entries if entry.name.endswith(_SUFFIX)
                    )
