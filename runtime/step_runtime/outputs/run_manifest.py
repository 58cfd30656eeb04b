"""`run.json`: what a run was of, and whether it is finished."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from step.bundles.records import Record

RUN_FILE = "run.json"

Status = Literal["running", "finished", "interrupted", "failed"]


class RunManifest(Record):
    """A run's state when the file was written.

    Attributes:
        status: "running" until the run ends; a process that is killed leaves it so.
        source: what was run, without passwords.
        video: what results call it.
        is_live: whether its files grew while it ran.
        started, ended: with time zone; a run that is not over has no end.
        key_frames: how many were detected on.
        dropped_clips, dropped_frames: of a live source, how many were not taken in time.
        reconnects: of a live source, how often it was connected to again.
        problem: why it ended early, if it did by itself.
        notes: what was chosen, skipped or bounded in reading, a line each.
    """

    status: Status
    source: str
    video: str
    is_live: bool
    started: datetime
    ended: datetime | None = None
    key_frames: int = 0
    dropped_clips: int = 0
    dropped_frames: int = 0
    reconnects: int = 0
    problem: str | None = None
    notes: tuple[str, ...] = ()


def write_run(folder: Path, manifest: RunManifest) -> None:
    """Writes `run.json`, in place: its size hardly changes, so that it can be written on a full disk.

    Raises:
        OSError: it cannot be written.
    """
    # The standard library's writer escapes what in a file's name is no UTF-8, where pydantic's raises.
    content = (json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n").encode()
    descriptor = os.open(folder / RUN_FILE, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.truncate()


def read_run(folder: Path) -> RunManifest | None:
    """What an earlier run left, or None where nothing that can be read is there."""
    try:
        return RunManifest.model_validate(json.loads((folder / RUN_FILE).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
