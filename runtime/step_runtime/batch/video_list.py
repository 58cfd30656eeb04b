"""The videos of an archive: found in folders, lists, patterns and storage behind URLs, each with a name of its own."""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from step.errors import StepError
from step.files.text_files import read_text
from step.video.files import VIDEO_SUFFIXES, is_url, local_path, natural_key
from step_runtime.sources.stream import is_live_stream, shown_url

LIST_SUFFIXES = (".txt", ".lst")
_MOST_LIST_BYTES = 2**30
_PATTERN = "*?["

Say = Callable[[str], None]


@dataclass(frozen=True)
class Video:
    """One video.

    Attributes:
        name: what results call it; no other video of the output has it.
        location: absolute path or URL.
    """

    name: str
    location: str

    @property
    def shown(self) -> str:
        """The location for messages and files; see `shown_location`."""
        return shown_location(self.location)


def shown_location(location: str) -> str:
    """A path or URL for messages and tables: without a password, and what in it is no UTF-8 is escaped."""
    return _storable(shown_url(location))


@dataclass(frozen=True)
class Found:
    """A video that was found, and its path below what was typed."""

    location: str
    below: str


def list_videos(sources: Sequence[str], *, say: Say = lambda _line: None) -> list[Found]:
    """Finds the videos that were asked for, each once, in the order of the sources and of names.

    Args:
        sources: folders (searched through, with what is below them), files, lists (.txt or .lst: a path or URL a line,
            paths relative to the list), patterns, or URLs of these, which fsspec opens.
        say: is called with what is left out.

    Raises:
        StepError: a source that is missing, empty or live. What a list names may be missing: its turn shows it.
    """
    found = [each for source in sources for each in _find(source)]
    once: dict[str, Found] = {}
    for each in found:
        once.setdefault(shown_location(each.location), each)
    unique = list(once.values())
    if len(unique) < len(found):
        say(f"{len(found) - len(unique)} of {len(found)} videos were named more than once")
    return unique


def name_videos(found: Sequence[Found], given: Mapping[str, str]) -> list[Video]:
    """Names videos by their paths below what was typed, without suffix: "clip", or "2024/clip" in a folder.

    Where two would have one name, their suffixes tell them apart ("clip.mp4" and "clip.avi"), or else a number
    ("clip.mp4-2"). Names that were given in an earlier run of the output stay, whatever is found since.

    Args:
        found: the videos.
        given: location, as it is shown -> name.
    """
    belows = [_storable(each.below) for each in found]
    short = [_without_suffix(below) for below in belows]
    counts: dict[str, int] = {}
    for name in short:
        counts[name] = counts.get(name, 0) + 1
    taken = set(given.values())
    videos = []
    for each, below, name in zip(found, belows, short, strict=True):
        known = given.get(shown_location(each.location))
        if known is None:
            known = below if counts[name] > 1 or name in taken else name
            number = 2
            while known in taken:
                known, number = f"{below}-{number}", number + 1
            taken.add(known)
        videos.append(Video(name=known, location=each.location))
    return videos


def is_fetched(location: str) -> bool:
    """Whether a location is a URL, which fsspec opens; it may be chained, as "simplecache::s3://bucket/clip.mp4"."""
    return is_url(location) or ("://" in location and "::" in location and not Path(location).exists())


def file_system(url: str) -> tuple[Any, str]:
    """The storage behind a URL, and the path in it.

    Raises:
        StepError: fsspec is not installed, or knows no such storage.
    """
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise StepError(
            f"{shown_url(url)}: URLs need fsspec; install it with: pip install 'step-trt[batch]'"
        ) from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise StepError(f"{shown_url(url)}: cannot be opened: {_said(error)}") from error
    return system, str(path)


def _find(source: str) -> Iterator[Found]:
    if is_live_stream(source, duration_s=None, size_bytes=1) and is_url(source):
        raise StepError(f"{shown_url(source)}: is a live stream, which no archive has; step-run takes it")
    if is_fetched(source):
        yield from _find_behind(source)
        return
    path = local_path(source)
    if any(sign in source for sign in _PATTERN) and not path.exists():
        yield from _match(source)
    elif path.is_dir():
        yield from _walk(path.absolute())
    elif path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        yield from _read_list(path)
    elif path.exists():
        yield Found(str(path.absolute()), path.name)
    else:
        raise StepError(f"{source}: no such file or folder")


def _match(pattern: str) -> Iterator[Found]:
    matches = sorted(map(Path, glob.glob(pattern, recursive=True)), key=str)  # noqa: PTH207 - it may be absolute
    files = [path for path in matches if path.is_file()]
    if not files:
        raise StepError(f"{pattern}: no file matches")
    fixed = PurePosixPath(pattern.split("*")[0].split("?")[0].split("[")[0])
    root = Path(fixed if pattern.startswith(f"{fixed}/") else fixed.parent).absolute()
    for path in files:
        yield Found(str(path.absolute()), path.absolute().relative_to(root).as_posix())


def _walk(root: Path) -> Iterator[Found]:
    count = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in sorted((Path(folder, name) for name in files), key=natural_key):
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
                count += 1
                yield Found(str(path), path.relative_to(root).as_posix())
    if not count:
        raise StepError(f"{root}: the folder holds no videos, nor does any below it")


def _read_list(path: Path) -> Iterator[Found]:
    try:
        text = read_text(path, most_bytes=_MOST_LIST_BYTES, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise StepError(f"{path}: cannot be read as a list of videos: {_said(error)}") from error
    lines = [line.strip() for line in text.splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise StepError(f"{path}: the list names no videos; write a path or URL in each line")
    for line in named:
        if is_fetched(line):
            yield Found(line, _last_part(line))
        else:
            place = (path.absolute().parent / local_path(line)).absolute()
            yield Found(str(place), place.name if local_path(line).is_absolute() else _below(line))


def _below(line: str) -> str:
    """A relative path of a list without steps upwards, which no name has."""
    return "/".join(part for part in PurePosixPath(line).parts if part not in ("..", "."))


def _find_behind(url: str) -> Iterator[Found]:
    system, path = file_system(url)
    try:
        if any(sign in path for sign in "*["):
            root = path.split("*")[0].split("[")[0].rpartition("/")[0]
            paths = sorted(each for each in system.glob(path) if not system.isdir(each))
        elif system.isdir(path):
            root = path.rstrip("/")
            paths = sorted(each for each in system.find(path) if PurePosixPath(each).suffix.lower() in VIDEO_SUFFIXES)
        else:
            yield Found(url, _last_part(url))
            return
    except (OSError, ValueError, ImportError) as error:
        raise StepError(f"{shown_url(url)}: cannot be listed: {_said(error)}") from error
    if not paths:
        raise StepError(f"{shown_url(url)}: no videos there")
    before, chained, after = url.partition("::")
    for each in paths:
        # In a chain it is the first part that has the path, as "zip://clip.mp4::s3://bucket/clips.zip".
        place = f"{before.partition('://')[0]}://{each}{chained}{after}" if chained else system.unstrip_protocol(each)
        yield Found(place, each.removeprefix(root).lstrip("/"))


def _last_part(url: str) -> str:
    return PurePosixPath(url.partition("::")[0].partition("?")[0]).name or "video"


def _without_suffix(below: str) -> str:
    path = PurePosixPath(below)
    return below.removesuffix(path.suffix) if path.suffix.lower() in VIDEO_SUFFIXES else below


def _storable(text: str) -> str:
    """File names may hold bytes that are no UTF-8; neither JSON nor Parquet has them."""
    return text.encode(errors="backslashreplace").decode()


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
