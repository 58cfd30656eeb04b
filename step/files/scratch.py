"""Scratch folders: where something is written before it takes its name (torch-free).

A scratch folder is `.step-` and eight characters, beside what it is for or in it. It holds `lock` (which says what it
is for, and is locked as long as its process lives), `new` (what is being written) and, for moments, `previous` (a
folder that stepped aside for the new one) or `ready` (files that are being moved to their places, which is decided).
Whoever comes next to the same place finishes what a killed process had begun to publish, or undoes it, and removes the
folder. Where there are no locks (Windows, some network file systems), stale folders stay.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from step.errors import StepError
from step.files.locks import Locked, folder_lock, try_lock, wait_for_lock

PATIENCE_S = 2.0
"""How long a writer waits for another one of the same target, before it gives up."""

_PREFIX = ".step-"
_NAME = re.compile(r"\.step-[a-z0-9_]{8}")  # as tempfile names them
_LOCK, _NEW, _PREVIOUS, _OLD, _READY, _REMOVES = "lock", "new", "previous", "old", "ready", "removes"
_MADE_BY = "step-trt scratch folder"
_PAUSE_S = 0.02

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Scratch:
    """A scratch folder of this process.

    Attributes:
        folder: itself.
        target: what it is for.
    """

    folder: Path
    target: Path | None

    @property
    def new(self) -> Path:
        """A folder in it, to write to."""
        return self.folder / _NEW

    @property
    def previous(self) -> Path:
        """Where a folder steps aside to; it goes back unless something else is in its place by then."""
        return self.folder / _PREVIOUS

    def move_in(self, removes: Collection[str]) -> None:
        """Moves all files of `new` into the target, a folder, and removes some there that they do not replace.

        It is decided in one step, after which every later call on the place completes it.
        """
        assert self.target is not None
        (self.folder / _REMOVES).write_text(json.dumps(sorted(removes)))
        self.new.rename(self.folder / _READY)
        _move_in(self.folder, self.target)


@contextlib.contextmanager
def scratch_folder(target: Path | None, *, place: Path) -> Iterator[Scratch]:
    """A scratch folder; when it is left, what was begun to be published is finished or undone, and the rest removed.

    Args:
        target: what is to be written: `place` itself or something in it. None if nobody else can be in the way.
        place: where the folder is made; stale ones that lie there are seen to first.

    Raises:
        StepError: another process is writing this target.
        OSError: the place cannot be written.
    """
    folder, descriptor = _when_free(target, place, lambda: _make(target, place))
    try:
        yield Scratch(folder, target)
    finally:
        try:
            with contextlib.suppress(OSError):  # what cannot be removed stays for the next one to see to
                _settle(folder, _read_note(descriptor))
        finally:
            os.close(descriptor)


def wait_until_free(target: Path, *, place: Path) -> None:
    """Sees to what dead processes left in `place`; returns when no other process writes the target from there.

    Raises:
        StepError: one still does after a while.
    """
    _when_free(target, place, lambda: None)


def sweep(place: Path) -> None:
    """Sees to what dead processes left in a folder."""
    _when_free(None, place, lambda: None)


def recover(target: Path) -> None:
    """For readers that find nothing: waits while a folder is being replaced, or undoes it if it was left half done.

    Only where the system cannot exchange two folders is there a moment in which neither is at `target`.
    """
    target = target.resolve()
    end_s = time.monotonic() + PATIENCE_S
    while not target.exists() and time.monotonic() < end_s:
        if not any((path / _PREVIOUS).exists() for path in _scratches(target.parent)):
            return
        sweep(target.parent)
        time.sleep(_PAUSE_S)


def is_scratch_name(name: str) -> bool:
    """Whether a scratch folder may be called so."""
    return _NAME.fullmatch(name) is not None


def _when_free(target: Path | None, place: Path, act: Callable[[], _Made]) -> _Made:
    """Acts when nobody else writes the target, while the place is locked, so that two cannot both find it free."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        with folder_lock(place, most_s=PATIENCE_S) as is_alone:
            if not _visit(place, target, is_alone=is_alone):
                return act()
        if time.monotonic() > end_s:
            raise StepError(
                f"cannot write {target}: another process is writing it; wait for it or choose another place"
            )
        time.sleep(_PAUSE_S)


def _make(target: Path | None, place: Path) -> tuple[Path, int]:
    """The folder and its open lock."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    descriptor = None
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        wait_for_lock(descriptor, most_s=PATIENCE_S)  # one who looks whether it is free has it for a moment
        os.write(descriptor, json.dumps({"by": _MADE_BY, "target": _name(target, place)}).encode())
        (folder / _NEW).mkdir()
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, descriptor


def _name(target: Path | None, place: Path) -> str | None:
    return None if target is None else "." if target == place else target.name


def _visit(place: Path, target: Path | None, *, is_alone: bool) -> bool:
    """Sees to what the dead left, if nobody else does at the same time; whether someone alive writes the target."""
    is_busy = False
    for folder in _scratches(place):
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            if is_alone:
                with contextlib.suppress(OSError):  # one that has no lock yet, or none any more, is empty
                    folder.rmdir()
            continue
        except OSError:
            continue
        try:
            answer, note = try_lock(descriptor), _read_note(descriptor)
            if answer is Locked.TAKEN and note is not None and target is not None:
                is_busy = is_busy or note["target"] == _name(target, place)
            if answer is Locked.OURS and is_alone:
                with contextlib.suppress(OSError):
                    _settle(folder, note)
        finally:
            os.close(descriptor)
    return is_busy


def _scratches(place: Path) -> list[Path]:
    """Folders, no links, of this user."""
    found: list[Path] = []
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if is_scratch_name(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    owner = entry.stat(follow_symlinks=False).st_uid
                    if sys.platform == "win32" or owner == os.geteuid():
                        found.append(place / entry.name)
    return found


def _read_note(descriptor: int) -> dict[str, Any] | None:
    """What a lock's file says; None for one that is not ours, or that was not written yet."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        note = json.loads(os.read(descriptor, 1 << 16))
    except (ValueError, RecursionError):
        return None
    if not isinstance(note, dict) or note.get("by") != _MADE_BY:
        return None
    name = note.get("target")
    return note if name is None or name == "." or _is_plain(name) else None


def _is_plain(name: object) -> bool:
    """Whether a name is that of something in a folder, not elsewhere."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name


def _settle(folder: Path, note: dict[str, Any] | None) -> None:
    """Brings what was begun to its end, so that the target is whole, and removes the folder, its lock last."""
    if note is None:  # killed before anything was written, or none of ours
        if [path.name for path in folder.iterdir()] == [_LOCK] and not (folder / _LOCK).stat().st_size:
            (folder / _LOCK).unlink()
            folder.rmdir()
        return
    if note["target"] is not None:
        target = folder.parent / note["target"]
        if (folder / _PREVIOUS).is_dir():
            # Under another name it is not taken for one that has to go back, should this be interrupted too.
            (folder / _PREVIOUS).rename(folder / _OLD if os.path.lexists(target) else target)
        if (folder / _READY).is_dir() and target.is_dir():
            _move_in(folder, target)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
    (folder / _LOCK).unlink()
    folder.rmdir()


def _move_in(folder: Path, target: Path) -> None:
    """Can be begun again wherever it was interrupted."""
    ready = folder / _READY
    removes = [name for name in json.loads((folder / _REMOVES).read_text()) if _is_plain(name)]
    for name in removes:
        (target / name).unlink(missing_ok=True)
    for path in sorted(ready.iterdir()):
        path.replace(target / path.name)
    ready.rmdir()
