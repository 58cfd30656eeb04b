"""Finds videos by the names that AVA has for them: file names without suffix (torch-free)."""

from collections.abc import Callable, Iterable
from pathlib import Path

from step.errors import StepError
from step.video.files import check_regular_file, describe_skipped, read_folder


def videos_by_name(places: Iterable[Path], *, say: Callable[[str], None] = lambda _line: None) -> dict[str, Path]:
    """Finds the files themselves, and the videos in folders.

    Args:
        places: files and folders.
        say: is called with one line about what is left out of a folder.

    Raises:
        StepError: one that is missing or no regular file, a folder without videos, or two videos of one name.
    """
    files: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            content = read_folder(place)
            found = content.videos
            skipped = describe_skipped(place, (*content.frames, *content.folders, *content.skipped))
            if not found:
                raise StepError(f"{place}: the folder holds no video" + (f"; {skipped}" if skipped else ""))
            if skipped:
                say(skipped)
        else:
            if not place.exists() and not place.is_symlink():
                raise StepError(f"{place}: no such file or folder")
            check_regular_file(place)
            found = (place,)
        for path in found:
            if path.stem in files:
                raise StepError(
                    f"{path}: has the name of {files[path.stem]}, and both would be {path.stem!r}; rename one"
                )
            files[path.stem] = path
    return files
