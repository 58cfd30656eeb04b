"""Stores extracted frames: `<root>/<video>/<second, five digits>/<frame of the second, five digits>.jpg` (torch-free).

Source: SPEC.md, "Clip and preprocessing".
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from step.config import CLIP_FPS
from step.errors import StepError
from step.files.atomic import atomic_path
from step.files.json_files import read_json

_JPEG_END = b"\xff\xd9"
_INDEX = "index.json"
_HALF = CLIP_FPS // 2
CLIP_FRAMES = 3 * CLIP_FPS
"""Frames of a key frame's clip."""
CLIP_PARTS = ((-2, slice(_HALF, None)), (-1, slice(None)), (0, slice(None)), (1, slice(_HALF)))
"""Seconds from a key frame's, and which of their twelve frames are in its clip."""


def second_folder(root: Path, video: str, second: int) -> Path:
    """Returns where the frames of one second lie."""
    return root / video / f"{second:05d}"


def frame_file(folder: Path, index: int) -> Path:
    """Returns the file of a frame, by its index in the second, from 0."""
    return folder / f"{index:05d}.jpg"


def resampled(count: int) -> NDArray[np.int64]:
    """Picks a second's frames at 12 a second, int64 [12]: floor(linspace(0, n, 12, endpoint=False))."""
    return np.floor(np.linspace(0, count, CLIP_FPS, endpoint=False)).astype(np.int64)


def clip_files(root: Path, video: str, second: int) -> list[Path]:
    """Finds the 36 frames of the clip around a key frame: half of second t - 2, t - 1, t, half of t + 1.

    Where the clip reaches beyond the video, or into a gap in it, the nearest frame stands in, as SPEC.md has it for the
    ends of free video.

    Args:
        root: folder of the frames.
        video: its name.
        second: t, of the key frame.

    Raises:
        StepError: a second without frames, or a key frame beyond the video.
    """
    files: list[Path] = []
    for offset, part in CLIP_PARTS:
        number = second + offset
        folder = second_folder(root, video, number)
        frames = sorted(folder.glob("*.jpg"))
        if not frames and offset:
            frames = _nearest_frame(root, video, number, towards=second)
        if not frames:
            raise StepError(f"{folder}: no frames of second {number} of {video}; extract them: step-data extract")
        files += [frames[index] for index in resampled(len(frames))[part]]
    return files


def _nearest_frame(root: Path, video: str, number: int, *, towards: int) -> list[Path]:
    """Finds what stands in for a second without frames, seen from another; nothing for one that has some."""
    index = read_index(root, video)
    near = number
    if number < 0:
        near = 0
    elif index.last_second is not None and number > index.last_second:
        near = index.last_second
    gap = index.gap_at(near)
    if gap is not None:
        near = gap[1] + 1 if number < towards else gap[0] - 1
    if near == number:
        return []
    files = sorted(second_folder(root, video, near).glob("*.jpg"))
    return files[:1] if number < towards else files[-1:]


def read_frame(path: Path) -> NDArray[np.uint8]:
    """Reads a frame, uint8 [H, W, 3] RGB.

    Raises:
        StepError: the file is missing or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StepError(f"{path}: cannot be read: {error.strerror or error}") from error
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content else None
    if image is None or not is_whole(content):
        raise StepError(f"{path}: not a whole JPEG file; extract it again: step-data extract")
    return np.asarray(image, np.uint8)


def read_clip(root: Path, video: str, second: int) -> NDArray[np.uint8]:
    """Reads a clip, uint8 [36, H, W, 3] RGB; see `clip_files`."""
    return np.stack([read_frame(path) for path in clip_files(root, video, second)])


@dataclass(frozen=True)
class FrameIndex:
    """Holds what is known of a video's extracted frames.

    Attributes:
        source_bytes: size of the video that they come from.
        counts: frames of each extracted second.
        last_second: of the video; None as long as its end was not seen.
        is_whole: whether all the video's seconds are among `counts`.
        gaps: (first, last) second of each stretch within the video that shows no frame.
    """

    source_bytes: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    last_second: int | None = None
    is_whole: bool = False
    gaps: tuple[tuple[int, int], ...] = ()

    def gap_at(self, second: int) -> tuple[int, int] | None:
        """Returns the gap in which a second lies; None where it lies in none."""
        return next((gap for gap in self.gaps if gap[0] <= second <= gap[1]), None)


def read_index(root: Path, video: str) -> FrameIndex:
    """Reads a video's index; it is empty where nothing is extracted yet.

    Raises:
        StepError: the file that says it is damaged.
    """
    path = root / video / _INDEX
    if not path.exists():
        return FrameIndex()
    advice = "remove it, and step-data extract makes it again"
    content = read_json(path, advice=advice)
    try:
        counts = {int(second): int(count) for second, count in content["counts"].items()}
        last = content["last_second"]
        return FrameIndex(
            source_bytes=int(content["source_bytes"]),
            counts=counts,
            last_second=None if last is None else int(last),
            is_whole=bool(content["is_whole"]),
            gaps=tuple((int(first), int(end)) for first, end in content.get("gaps", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise StepError(f"{path}: is damaged ({error}); {advice}") from error


def write_index(root: Path, video: str, index: FrameIndex) -> None:
    """Writes what `read_index` reads."""
    counts = {f"{second:05d}": count for second, count in sorted(index.counts.items())}
    with atomic_path(root / video / _INDEX) as path:
        path.write_text(json.dumps({**asdict(index), "counts": counts}) + "\n")


def is_whole(content: bytes) -> bool:
    """Says whether a JPEG file was written to its end."""
    return content.rstrip(b"\0").endswith(_JPEG_END)


def is_complete(folder: Path, count: int) -> bool:
    """Says whether a second's folder holds `count` whole frames."""
    if not folder.is_dir():
        return False
    files = sorted(folder.iterdir())
    if [file.name for file in files] != [frame_file(folder, index).name for index in range(count)]:
        return False
    return all(_ends_well(file) for file in files)


def _ends_well(file: Path) -> bool:
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(size - 16, 0))
        return is_whole(opened.read())
