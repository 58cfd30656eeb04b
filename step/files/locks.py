"""Locks that end with the process that holds them, however it ends (torch-free)."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from step.errors import StepError

WRITER_LOCK = ".writer.lock"

_PAUSE_S = 0.02
_MOST_DIGITS = 20
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


class Locked(Enum):
    """What came of asking for a lock."""

    OURS = "ours"
    TAKEN = "taken"
    UNKNOWN = "unknown"  # the system or the file system has no such locks


def try_lock(descriptor: int) -> Locked:
    """Asks once for the lock of an open file; closing it lets go."""
    if sys.platform == "win32":
        return Locked.UNKNOWN
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Locked.TAKEN if error.errno in _TAKEN else Locked.UNKNOWN
    return Locked.OURS


def wait_for_lock(descriptor: int, *, most_s: float) -> Locked:
    """Asks until the lock is free, for so many seconds at most."""
    end_s = time.monotonic() + most_s
    while (answer := try_lock(descriptor)) is Locked.TAKEN and time.monotonic() < end_s:
        time.sleep(_PAUSE_S)
    return answer


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds a folder that a long run writes to; its file stays there, since a lock that is removed can be held twice.

    Raises:
        StepError: another process holds it.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / WRITER_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if try_lock(descriptor) is Locked.TAKEN:
            holder = os.read(descriptor, _MOST_DIGITS).decode(errors="replace").strip() or "another"
            raise StepError(f"{folder}: process {holder} is writing there; wait for it or choose another place")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def folder_lock(folder: Path, *, most_s: float) -> Iterator[bool]:
    """Holds the lock of a folder itself, for moments; it leaves no file. Yields whether it is held."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        yield wait_for_lock(descriptor, most_s=most_s) is Locked.OURS
    finally:
        os.close(descriptor)
