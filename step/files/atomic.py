"""Writing files so that nobody ever sees half of one (torch-free)."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from step.errors import StepError
from step.files.exchange import exchange
from step.files.scratch import Scratch, scratch_folder, wait_until_free
from step.memory import is_memory_shortage


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary name to write a file or folder to; `target` on success, removed on failure.

    Whatever interrupts, be it a kill, `target` is what was there or the new one, whole. A folder is exchanged for the
    new one in one step. Where the system has no such step (network file systems, other than Linux), the old one steps
    aside first: a process that is killed in this moment leaves nothing at `target`, until the next one that writes it
    or looks for it with `step.files.scratch.recover`, as `read_bundle` does, puts the old one back.

    What a link points to is replaced, not the link; a device or pipe is written to. What killed processes left beside
    `target` is removed. Power cuts are the file system's business: nothing is waited for to reach the disk.

    Raises:
        StepError: the place cannot be written, the disk is full, or another process is writing the same target.
    """
    target = Path(target).resolve()
    try:
        is_special = target.exists() and not (target.is_file() or target.is_dir())
        place = Path(tempfile.gettempdir()).resolve() if is_special else target.parent
        place.mkdir(parents=True, exist_ok=True)
        with scratch_folder(None if is_special else target, place=place) as scratch:
            temporary = scratch.new / target.name
            yield temporary
            if is_special:
                with temporary.open("rb") as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
            elif target.is_dir() and temporary.is_dir():
                if not exchange(temporary, target):
                    target.rename(scratch.previous)
                    temporary.rename(target)
            else:
                temporary.replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error


def check_writable(target: Path) -> None:
    """Whether `atomic_path` will find a place; for before long work.

    Raises:
        StepError: it will not.
    """
    target = Path(target).resolve()
    if target.is_dir():
        raise StepError(f"cannot write {target}: a folder is in the way; name a file")
    if target.exists() and not target.is_file():
        return  # a device is written to as it is
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(None, place=target.parent):
            pass
    except OSError as error:
        raise cannot_write(target, error) from error


def check_outputs(outputs: Mapping[str, Path | None]) -> None:
    """Whether every output will find a place of its own.

    Args:
        outputs: by option; None for one that is not wanted.

    Raises:
        StepError: a place that cannot be written, or that two options name.
    """
    options: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        check_writable(path)
        other = options.setdefault(path.resolve(), option)
        if other != option and (path.is_file() or not path.exists()):  # a device, such as /dev/null, takes several
            raise StepError(f"{other} and {option} are both {path}; give each a file of its own")


@contextlib.contextmanager
def atomic_files(folder: Path, *, names: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder whose files are published in `folder` together, beside what is there; removed on failure.

    Whatever interrupts, be it a kill, the files are those of one publication, where `folder` is new, empty or holds
    nothing but what is replaced: then the folder is exchanged in one step. Where it holds anything else, is the current
    directory, a place that is mounted or one whose parent cannot be written, or where the system cannot exchange
    folders, the files are moved one by one, after it is decided: an interrupt waits for them all, and a kill in this
    moment leaves some old and some new until the next publication in `folder` begins, which moves the rest first.

    Args:
        folder: made if it is not there.
        names: files that belong together; those that are in `folder` and are not written anew are removed.

    Raises:
        StepError: the place cannot be written, the disk is full, or another process is publishing there.
    """
    folder = Path(folder).resolve()
    names = frozenset(names)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _files_scratch(folder, names) as scratch:
            yield scratch.new
            written = frozenset(path.name for path in scratch.new.iterdir())
            if written:
                _publish(scratch, folder, written, names - written)
    except OSError as error:
        raise cannot_write(folder, error) from error


@contextlib.contextmanager
def _files_scratch(folder: Path, names: frozenset[str]) -> Iterator[Scratch]:
    """Beside the folder if it can be replaced as a whole, as far as is known before, else in it."""
    wait_until_free(folder, place=folder.parent)
    inside = False
    if folder.is_dir():
        wait_until_free(folder, place=folder)
        _check_no_folders(folder, names)
        inside = not _is_replaceable(folder, names)
    with scratch_folder(folder, place=folder if inside else folder.parent) as scratch:
        yield scratch


def _publish(scratch: Scratch, folder: Path, written: frozenset[str], removed: frozenset[str]) -> None:
    if scratch.folder.parent != folder:
        if not folder.exists():
            scratch.new.rename(folder)
            return
        if _is_replaceable(folder, written | removed):
            scratch.new.chmod(stat.S_IMODE(folder.stat().st_mode))
            with contextlib.suppress(OSError):  # such as a place that was mounted meanwhile
                if exchange(scratch.new, folder):
                    return
    _check_no_folders(folder, written | removed)
    scratch.move_in(removed)


def _is_replaceable(folder: Path, names: frozenset[str]) -> bool:
    """Whether nothing is lost, and nobody led astray, if another folder takes the place of this one."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # removed
        return False
    if folder in (here, *here.parents) or not os.access(folder.parent, os.W_OK) or _is_mounted(folder):
        return False
    return all(path.name in names for path in folder.iterdir())


def _is_mounted(folder: Path) -> bool:
    """Also where a folder of the same file system is mounted, which `os.path.ismount` takes for none."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return folder.is_mount()
    places = (re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1], 8)]), line.split()[4]) for line in lines)
    return os.fsencode(folder) in places


def _check_no_folders(folder: Path, names: frozenset[str]) -> None:
    for name in sorted(names):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))


def cannot_write(target: Path, error: OSError) -> StepError:
    """The one-line message for a file that could not be written."""
    in_the_way = isinstance(error, (FileExistsError, NotADirectoryError))
    reason = "a file is in the way" if in_the_way else os.strerror(error.errno) if error.errno else str(error)
    if is_memory_shortage(error):
        return StepError(f"cannot write {target}: {reason}; free memory, then run it again")
    return StepError(f"cannot write {target}: {reason}; free space or choose another place")


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
