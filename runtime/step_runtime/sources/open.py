"""Telling sources apart: file, folder of videos, folder of frames, camera index, URL.

What exists on disk is taken for what it is; only what does not is a camera's index or a URL.
"""

import functools
import glob
import itertools
import numbers
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

from step.arguments import check_whole
from step.errors import ArgumentError, StepError
from step.video.files import check_regular_file, describe_skipped, is_url, local_path, read_folder
from step_runtime.sources.base import Source
from step_runtime.sources.camera import CameraConnection
from step_runtime.sources.frame_folder import FrameFolderSource
from step_runtime.sources.live import DEFAULT_OPTIONS, LiveOptions, LiveSource
from step_runtime.sources.stream import StreamConnection, shown_url
from step_runtime.sources.video import VideoSource, video_name

SourceArgument = int | str | Path | Source
"""What stands for one source or for those of a folder; an int is a camera."""

_MOST_CAMERAS = 2**31 - 1  # a C int
_OF_A_SOURCE = ("name", "interval_s", "slack_s", "duration_s", "is_live", "problem", "notes", "frames")


def source_openers(
    source: SourceArgument | Sequence[SourceArgument], *, frames_fps: Fraction
) -> list[Callable[[], Source]]:
    """What opens the sources that an argument stands for, each when it is called; what is missing is said at once.

    Args:
        source: path, URL, camera's number, a source of the caller's, or a list of these.
        frames_fps: of folders of frames.

    Raises:
        StepError: see `find_sources`; nothing of these; an empty list.
    """
    items: list[object] = list(source) if isinstance(source, (list, tuple)) else [source]
    if not items:
        raise ArgumentError("`source` is an empty list; give at least one video, folder, camera's number or URL")
    found: list[str | Path | int | Source] = []
    for item in items:
        if isinstance(item, (str, Path)):
            found += find_sources(item, frames_fps=frames_fps)
        elif isinstance(item, numbers.Integral):
            check_whole("source", item, least=0, most=_MOST_CAMERAS)
            found.append(int(item))
        else:
            found.append(_checked(item))
    names = iter(source_names([entry for entry in found if isinstance(entry, (str, Path))]))
    return [_opener(entry, names, frames_fps) for entry in found]


def _opener(entry: str | Path | int | Source, names: Iterator[str], frames_fps: Fraction) -> Callable[[], Source]:
    if isinstance(entry, int):
        return functools.partial(open_camera, entry, name=f"camera{entry}")
    if isinstance(entry, (str, Path)):
        return functools.partial(open_source, entry, frames_fps=frames_fps, name=next(names))
    return lambda: entry


def _checked(source: object) -> Source:
    """A source of the caller's own.

    Raises:
        ArgumentError: it is none; the line says what it lacks.
    """
    missing = [name for name in _OF_A_SOURCE if not hasattr(source, name)]
    if len(missing) == len(_OF_A_SOURCE):
        raise ArgumentError(
            f"`source` is of the type {type(source).__name__}; give a video, a folder, a camera's number, a URL, a "
            "Source, or a list of these (for frames of your own: Detector.stream)"
        )
    if missing:
        raise ArgumentError(f"`source` is a {type(source).__name__} without {', '.join(missing)}; see Source")
    return cast(Source, source)


def find_sources(
    source: str | Path, *, frames_fps: Fraction, say: Callable[[str], None] = lambda _line: None
) -> list[str | Path]:
    """What a source argument stands for: itself, or everything in a folder, in order of name.

    Args:
        source: path, URL, or camera index; a `Path` is always a path.
        frames_fps: unused for videos; must be positive.
        say: is called with one line on what is left out of a folder.

    Raises:
        StepError: missing, neither a file nor a folder, or a folder without videos or frames.
    """
    if frames_fps <= 0:
        raise ArgumentError(f"`frames_fps` is {float(frames_fps):g}; it must be above 0")
    if not str(source):
        raise StepError("the source is empty; give a video, a folder, a camera's number or a URL")
    if isinstance(source, str) and (_is_camera(source) or is_url(source)):
        return [source]
    path = local_path(source) if isinstance(source, str) else source
    if not path.exists() and not path.is_symlink():
        raise StepError(f"{source}: no such file or folder")
    if not path.is_dir():
        check_regular_file(path, shown=str(source))
        return [str(path)]
    content = read_folder(path)
    folders = tuple(folder for folder in content.folders if read_folder(folder).frames)
    others = (*content.skipped, *(folder for folder in content.folders if folder not in folders))
    if content.videos or (folders and not content.frames):
        # A folder of videos with a thumbnail in it is no folder of frames.
        skipped = describe_skipped(path, (*content.frames, *others), kind="neither videos nor folders of frames")
        found: list[str | Path] = [*(str(video) for video in content.videos), *folders]
    elif content.frames:
        skipped = describe_skipped(path, (*others, *folders), kind="no frames")
        found = [path]
    else:
        left_out = describe_skipped(path, others, kind="neither videos nor frames")
        raise StepError(f"{source}: the folder holds neither videos nor frames" + (f"; {left_out}" if left_out else ""))
    if skipped is not None:
        say(skipped)
    return found


def source_names(locations: Sequence[str | Path]) -> list[str]:
    """What results call each entry of `find_sources`: its name without suffix, with it where two would be the same.

    Where these are the same too, as of two cameras' streams, they are numbered.
    """
    short = [_short_name(location) for location in locations]
    longer = [
        name if short.count(name) == 1 or is_url(str(location)) else Path(location).name
        for name, location in zip(short, locations, strict=True)
    ]
    names: list[str] = []
    for name in longer:
        number = next(n for n in itertools.count(1) if (name if n == 1 else f"{name}-{n}") not in names)
        names.append(name if number == 1 else f"{name}-{number}")
    return names


def expand(source: str) -> list[str]:
    """What a pattern such as "videos/*.mp4" matches, in order of name; anything else stands for itself.

    Raises:
        StepError: nothing matches.
    """
    if is_url(source) or not any(sign in source for sign in "*?[") or Path(source).exists():
        return [source]
    found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - a pattern may be absolute
    if not found:
        raise StepError(f"{source}: no file or folder matches")
    return found


def _is_camera(location: str) -> bool:
    return location.isascii() and location.isdecimal() and not Path(location).exists()


def _short_name(location: str | Path) -> str:
    if Path(location).is_dir():
        return Path(location).absolute().name  # a folder of frames has no suffix
    if isinstance(location, str) and _is_camera(location):
        return f"camera{location}"
    return video_name(str(location))


def open_source(
    location: str | Path, *, frames_fps: Fraction, name: str | None = None, live: LiveOptions = DEFAULT_OPTIONS
) -> Source:
    """Opens one entry of `find_sources`.

    Args:
        location: the entry, or a path to a video or a folder of frames.
        frames_fps: of a folder of frames.
        name: what results call it; its own name if None.
        live: what to do when a stream or camera stands still or breaks.

    Raises:
        StepError: it cannot be opened.
    """
    name = name or _short_name(location)
    text = str(location)
    source: Source
    if Path(location).is_dir():
        source = FrameFolderSource(Path(location), fps=frames_fps)
        source.name = name
    elif isinstance(location, str) and _is_camera(text):
        source = open_camera(int(text), name=name, live=live)
    elif isinstance(location, str) and is_url(text):
        source = open_stream(text, name=name, live=live)
    else:
        source = VideoSource(text)
        source.name = name
    return source


def open_stream(url: str, *, name: str, live: LiveOptions = DEFAULT_OPTIONS) -> LiveSource:
    """Opens what is behind a URL; see `LiveSource`."""
    connect = functools.partial(StreamConnection, url, stall_timeout_s=live.stall_timeout_s, say=live.say)
    return LiveSource(name, shown=shown_url(url), connect=connect, options=live)


def open_camera(index: int, *, name: str, live: LiveOptions = DEFAULT_OPTIONS) -> LiveSource:
    """Opens a camera; see `LiveSource`."""
    connect = functools.partial(CameraConnection, index)
    return LiveSource(name, shown=f"camera {index}", connect=connect, options=live)
