"""Files of a live run, which are in their places while it runs."""

import contextlib
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from step.files.atomic import cannot_write
from step.files.scratch import scratch_folder, wait_until_free
from step_runtime.outputs.run_manifest import read_run

EARLIER = "earlier-"
"""How folders begin to which the files of earlier runs are moved; the time when the run began follows."""


@contextlib.contextmanager
def live_folder(folder: Path, *, names: Collection[str], evidence: str) -> Iterator[Path]:
    """The folder, for files that grow under their own names; an earlier run's are moved aside, into a folder there.

    A run that wrote nothing leaves everything as it was.

    Args:
        folder: made if it is not there.
        names: files of a run.
        evidence: the one of them that is not empty if anything was written.

    Raises:
        StepError: the place cannot be written, or another process is writing there.
    """
    folder = Path(folder).resolve()
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        wait_until_free(folder, place=folder.parent)
        # It is the lock: a second run finds it, and the next one removes it if this one is killed.
        with scratch_folder(folder, place=folder):
            aside = _move_aside(folder, names)
            try:
                yield folder
            finally:
                if not _is_filled(folder / evidence):
                    _put_back(folder, names, aside)
        if is_new:
            with contextlib.suppress(OSError):  # something is in it
                folder.rmdir()
    except OSError as error:
        raise cannot_write(folder, error) from error


def keep_live_run(folder: Path, names: Collection[str]) -> None:
    """Moves an earlier live run's files aside, which nobody can make again, before others replace them.

    Raises:
        StepError: they cannot be moved, or the run is still under way.
    """
    try:
        wait_until_free(folder.resolve(), place=folder.resolve())
        _move_aside(folder, names)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _move_aside(folder: Path, names: Collection[str]) -> Path | None:
    """Moves an earlier run's files into a folder of their own, and returns it; None where there are none."""
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files:
        return None
    run = read_run(folder)
    written_s = min(file.stat().st_mtime for file in files)
    began = datetime.fromtimestamp(written_s, UTC) if run is None else run.started.astimezone(UTC)
    aside = _new_folder(folder, f"{EARLIER}{began:%Y-%m-%dT%H-%M-%SZ}")
    for file in files:
        file.rename(aside / file.name)
    return aside


def _new_folder(folder: Path, name: str) -> Path:
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _put_back(folder: Path, names: Collection[str], aside: Path | None) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if aside is not None:
        for file in aside.iterdir():
            file.rename(folder / file.name)
        aside.rmdir()
