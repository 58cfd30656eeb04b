"""Telling sources apart: file, folder of videos, folder of frames, camera index, URL."""

from fractions import Fraction
from pathlib import Path

from step.errors import StepError
from step_runtime.sources.base import Source
from step_runtime.sources.camera import CameraSource
from step_runtime.sources.frame_folder import FrameFolderSource, image_files
from step_runtime.sources.video import VideoSource, is_url

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
    if is_url(source) or source.isdigit():
        return [source]
    path = Path(source)
    if not path.exists():
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


def open_source(location: str | Path, *, frames_fps: Fraction) -> Source:
    """Opens one entry of `find_sources`.

    Raises:
        StepError: it cannot be opened.
    """
    if isinstance(location, Path):
        return FrameFolderSource(location, fps=frames_fps)
    if location.isdigit():
        return CameraSource(int(location))
    return VideoSource(location)
