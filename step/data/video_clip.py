"""A key frame's clip straight from the video file, with no frames extracted before (torch-free)."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from step.data.frame_store import CLIP_FRAMES, CLIP_PARTS, resampled
from step.data.picture import scaled
from step.errors import StepError
from step.video_stream import DecodedFrame, VideoStream

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
"""What is taken for a video in a folder."""


def videos_of(folder: Path) -> list[Path]:
    """The videos in a folder, by name.

    Raises:
        StepError: no such folder.
    """
    if not folder.is_dir():
        raise StepError(f"{folder}: no such folder of videos")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)


def read_video_clip(path: Path, second: int) -> NDArray[np.uint8]:
    """The frames that extraction would store and `read_clip` would read, before JPEG.

    Where the clip reaches beyond the video, its first or last frame stands in, as in `clip_files`.

    Args:
        path: the video.
        second: t, of the key frame.

    Returns:
        uint8 [36, H, W, 3] RGB, H as in extracted frames.

    Raises:
        StepError: not a video, damaged, or without one of the clip's seconds within it.
    """
    import av

    seconds = [second + offset for offset, _ in CLIP_PARTS]
    frames: dict[int, list[DecodedFrame]] = {number: [] for number in range(max(seconds[0], 0), seconds[-1] + 1)}
    reaches_the_end = True
    with VideoStream(str(path)) as stream:
        try:
            for frame in stream.decode(start_s=Fraction(min(frames, default=0))):
                number = int(frame.time_s)
                if number > seconds[-1]:
                    reaches_the_end = False
                    break
                frames[number].append(frame)
        except av.FFmpegError as error:
            raise StepError(f"{path}: cannot be decoded at second {second} ({error.strerror})") from error
    pictures = []
    for offset, part in CLIP_PARTS:
        number = second + offset
        found = frames.get(number, [])
        if not found and offset:
            found = _frame_at_the_end(frames, number, reaches_the_end=reaches_the_end)
        if not found:
            raise StepError(f"{path}: has no frames in second {number}, which the clip of {second} needs")
        pictures += [scaled(found[index].picture, "rgb24").to_ndarray() for index in resampled(len(found))[part]]
    clip: NDArray[np.uint8] = np.stack(pictures)
    assert len(clip) == CLIP_FRAMES
    return clip


def _frame_at_the_end(
    frames: dict[int, list[DecodedFrame]], second: int, *, reaches_the_end: bool
) -> list[DecodedFrame]:
    """The video's first or last frame, for a second before or after it; nothing for one within."""
    decoded = [frame for number in sorted(frames) for frame in frames[number]]
    if second < 0:
        return decoded[:1]
    is_beyond = reaches_the_end and bool(decoded) and second > int(decoded[-1].time_s)
    return decoded[-1:] if is_beyond else []
