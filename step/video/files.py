"""What there is on disk: videos, frames, and what is neither (torch-free).

What exists is what it is, whatever its name looks like: a file `12:30:05.mp4` is no URL, a folder `00902` no camera.
"""

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from step.errors import StepError

_VIDEO_ENDINGS = """
    3g2 3gp 264 265 266 amv asf av1 avc avi dav dif divx dv f4v flv gif gxf h264 h265 h266 h26l hevc ismv ivf ivr kux
    m1v m2p m2t m2ts m2v m4v mj2 mjpeg mjpg mk3d mkv mod mov mp4 mpe mpeg mpg mpv mts mxf nsv nut nuv obu ogm ogv psp qt
    rm rmvb tod tp trp ts ty vc1 viv vob vro vvc webm wmv wtv xvid y4m
"""
VIDEO_SUFFIXES = frozenset(f".{ending}" for ending in _VIDEO_ENDINGS.split())
"""Endings by which videos in a folder are recognised: those of FFmpeg's demuxers and muxers that hold moving images,
and what cameras and programs call the same formats."""

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings by which frames in a folder are recognised; all are read by OpenCV."""

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_FILE_URL = "file://"
_CAMERA = re.compile(r"^/dev/video(\d+)$")
_NAMED = 3  # files, in a message


def is_url(text: str) -> bool:
    """Whether a source is a URL rather than a path; what exists on disk is none."""
    return bool(_URL.match(text)) and not text.lower().startswith(_FILE_URL) and not Path(text).exists()


def local_path(location: str) -> Path:
    """The path that a source without a host stands for; `file://` is taken off."""
    return Path(location[len(_FILE_URL) :] if location.lower().startswith(_FILE_URL) else location)


def ffmpeg_name(path: Path) -> str:
    """What FFmpeg calls a file, which takes a name with a colon for a protocol, and one with a dash for an option."""
    return f"file:{path.absolute()}"


def check_regular_file(path: Path, *, shown: str | None = None) -> None:
    """Refuses what can't be read as a file again and again.

    Raises:
        StepError: it is missing, empty, a folder, a pipe, a device or a socket.
    """
    shown = shown or str(path)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = "is a link to nothing" if path.is_symlink() else "no such file"
        raise StepError(f"{shown}: {problem}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StepError(f"{shown}: cannot be read: {reason}") from error
    mode = status.st_mode
    if stat.S_ISREG(mode):
        if not status.st_size:
            raise StepError(f"{shown}: the file is empty (0 bytes)")
        return
    camera = _CAMERA.match(str(path))
    if stat.S_ISDIR(mode):
        problem = "is a folder, not a video; give one of its files"
    elif stat.S_ISFIFO(mode):
        problem = "is a pipe, which can be read once only; save it to a file, and give that"
    elif camera:
        problem = f"is a camera's device; step-run takes a camera by its number: {camera[1]}"
    elif stat.S_ISSOCK(mode):
        problem = "is a socket, not a file; give a file or a URL"
    else:
        problem = "is a device, not a file; save what it gives to a file, and give that"
    raise StepError(f"{shown}: {problem}")


@dataclass(frozen=True)
class FolderContent:
    """What a folder holds; each part in natural order, frame2 before frame10.

    Attributes:
        videos, frames, folders: by their endings; hidden ones are not among them.
        skipped: all the other entries.
    """

    videos: tuple[Path, ...]
    frames: tuple[Path, ...]
    folders: tuple[Path, ...]
    skipped: tuple[Path, ...]


def read_folder(folder: Path) -> FolderContent:
    """Looks at a folder's entries.

    Raises:
        StepError: there is no such folder, or it can't be read.
    """
    if not folder.is_dir():
        raise StepError(f"{folder}: no such folder")
    try:
        entries = sorted(folder.iterdir(), key=natural_key)
    except OSError as error:
        raise StepError(f"{folder}: cannot be read: {error.strerror}") from error
    videos, frames, folders, skipped = [], [], [], []
    for entry in entries:
        suffix = entry.suffix.lower()
        if entry.name.startswith("."):
            skipped.append(entry)
        elif entry.is_dir():
            folders.append(entry)
        elif suffix in VIDEO_SUFFIXES and entry.is_file():
            videos.append(entry)
        elif suffix in IMAGE_SUFFIXES and entry.is_file():
            frames.append(entry)
        else:
            skipped.append(entry)
    return FolderContent(tuple(videos), tuple(frames), tuple(folders), tuple(skipped))


def natural_key(path: Path) -> tuple[list[str | int], str]:
    """Sorts by name, numbers in it by their values."""
    parts = re.split(r"(\d+)", path.name)  # every other one is a number; superscripts and the like are none
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], path.name


def describe_skipped(folder: Path, skipped: Sequence[Path], *, kind: str = "no videos") -> str | None:
    """One line about what is left out of a folder; None where nothing is."""
    if not skipped:
        return None
    named = ", ".join(path.name for path in skipped[:_NAMED])
    more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    count = "1 entry that is" if len(skipped) == 1 else f"{len(skipped)} entries that are"
    return f"{folder}: skipped {count} {kind}: {named}{more}"
