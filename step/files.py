"""Writing files so that nobody ever sees half of one (torch-free)."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from step.errors import StepError


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary name beside `target` to write a file or folder to; renamed to it on success, removed on failure.

    A folder that is already at `target` is replaced only after the new one is complete. What a link points to is
    replaced, not the link; a device or pipe is written to.

    Raises:
        StepError: the place cannot be written, or the disk is full.
    """
    target = Path(target).resolve()
    try:
        is_special = target.exists() and not (target.is_file() or target.is_dir())
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = None if is_special else target.parent
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=beside))
    except OSError as error:
        raise cannot_write(target, error) from error
    temporary = scratch / target.name
    try:
        yield temporary
        if is_special:
            with temporary.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        elif target.is_dir() and temporary.is_dir():
            _replace_folder(temporary, target, aside=scratch / "previous")
        else:
            temporary.replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_writable(target: Path) -> None:
    """Whether `atomic_path` will find a place; for before long work.

    Raises:
        StepError: it will not.
    """
    target = Path(target).resolve()
    if target.is_dir():
        raise StepError(f"cannot write {target}: a folder is in the way; name a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
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
def atomic_files(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files are moved into `folder` on success, beside what is there; removed on failure.

    Raises:
        StepError: the place cannot be written, or the disk is full.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".step-", dir=folder))
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield scratch
        for path in sorted(scratch.iterdir()):
            path.replace(folder / path.name)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _replace_folder(new: Path, target: Path, *, aside: Path) -> None:
    """Renames cannot replace a folder that holds something, so the old one steps aside first."""
    target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise


def cannot_write(target: Path, error: OSError) -> StepError:
    """The one-line message for a file that could not be written."""
    in_the_way = isinstance(error, (FileExistsError, NotADirectoryError))
    reason = "a file is in the way" if in_the_way else os.strerror(error.errno) if error.errno else str(error)
    return StepError(f"cannot write {target}: {reason}; free space or choose another place")


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
