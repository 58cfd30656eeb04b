"""A video behind a URL as a file on this machine, for as long as it is worked on."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from step.errors import StepError
from step_runtime.batch.video_list import file_system, is_fetched
from step_runtime.sources.stream import shown_url


@contextlib.contextmanager
def local_file(location: str, *, scratch: Path | None) -> Iterator[str]:
    """The path of a video; what fsspec has to fetch is removed afterwards.

    Args:
        location: path or URL.
        scratch: folder for what is fetched; None for the system's.

    Raises:
        StepError: it cannot be fetched.
    """
    if not is_fetched(location):
        yield location
        return
    system, path = file_system(location)
    with tempfile.TemporaryDirectory(prefix="step-batch-", dir=scratch) as folder:
        target = Path(folder) / f"video{PurePosixPath(path).suffix}"
        try:
            system.get_file(path, str(target))
        except (OSError, ValueError, ImportError) as error:
            said = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
            raise StepError(f"{shown_url(location)}: cannot be fetched: {said or type(error).__name__}") from error
        yield str(target)
