"""Telling sources apart: file, folder of videos, folder of frames, camera index, URL."""

import functools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from step.errors import StepError
from step.video_stream import is_url
from step_runtime.sources.base import Source
from step_runtime.sources.camera import CameraConnection
from step_runtime.sources.frame_folder import FrameFolderSource, image_files
from step_runtime.sources.live import DEFAULT_OPTIONS, LiveOptions, LiveSource
from step_runtime.sources.stream import StreamConnection, shown_url
from step_runtime.sources.video import VideoSource, video_name

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv"}
)


def find_sources(source: str, *, frames_fps: Fraction) -> list[str | Path]:
    """What a source argument stands for: itself, or everything in a folder, in order of name.

    Args:
        source: path, URL, or camera index.
        frames_fps: unused for videos; must be positive.

    Raises:
        StepError: missing, or a folder without videos or frames.
    """
    if frames_fps <= 0:
        raise StepError(f"--frames-fps is {float(frames_fps):g}; it must be above 0")
    if is_url(source) or source.isdecimal():
        return [source]
    path = Path(source)
    if not source or not path.exists():
        raise StepError(f"{source}: no such file or folder")
    if not path.is_dir():
        return [source]
    if image_files(path):
        return [path]
    videos: list[str | Path] = [
        str(entry) for entry in sorted(path.iterdir()) if entry.suffix.lower() in VIDEO_SUFFIXES and entry.is_file()
    ]
    folders: list[str | Path] = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and image_files(entry)]
    if not videos and not folders:
        raise StepError(f"{source}: the folder holds neither videos ({', '.join(sorted(VIDEO_SUFFIXES))}) nor frames")
    return videos + folders


def source_names(locations: Sequence[str | Path]) -> list[str]:
    """What results call each entry of `find_sources`: its name without suffix, with it where two would be the same."""
    short = [_short_name(location) for location in locations]
    return [
        name if short.count(name) == 1 else Path(location).name for name, location in zip(short, locations, strict=True)
    ]


def _short_name(location: str | Path) -> str:
    if isinstance(location, Path):
        return location.name  # a folder of frames has no suffix
    if location.isdecimal():
        return f"camera{location}"
    return video_name(location)


def open_source(
    location: str | Path, *, frames_fps: Fraction, name: str | None = None, live: LiveOptions = DEFAULT_OPTIONS
) -> Source:
    """Opens one entry of `find_sources`.

    Args:
        location: the entry.
        frames_fps: of a folder of frames.
        name: what results call it; its own name if None.
        live: what to do when a stream or camera stands still or breaks.

    Raises:
        StepError: it cannot be opened.
    """
    source: Source
    name = name or _short_name(location)
    if isinstance(location, Path):
        source = FrameFolderSource(location, fps=frames_fps)
        source.name = name
    elif location.isdecimal():
        source = open_camera(int(location), name=name, live=live)
    elif is_url(location):
        source = open_stream(location, name=name, live=live)
    else:
        source = VideoSource(location)
        source.name = name
    return source


def open_stream(url: str, *, name: str, live: LiveOptions = DEFAULT_OPTIONS) -> LiveSource:
    """Opens what is behind a URL; see `LiveSource`."""
    connect = functools.partial(StreamConnection, url, stall_timeout_s=live.stall_timeout_s)
    return LiveSource(name, shown=shown_url(url), connect=connect, options=live)


def open_camera(index: int, *, name: str, live: LiveOptions = DEFAULT_OPTIONS) -> LiveSource:
    """Opens a camera; see `LiveSource`."""
    connect = functools.partial(CameraConnection, index)
    return LiveSource(name, shown=f"camera {index}", connect=connect, options=live)
