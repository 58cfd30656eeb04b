"""Reads a key frame's clip straight from the video file, with no frames extracted before (torch-free)."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from step.data.frame_store import CLIP_FRAMES, CLIP_PARTS, resampled
from step.data.stored_image import scaled
from step.errors import StepError
from step.video_stream import DecodedFrame, VideoStream


def read_video_clip(path: Path, second: int) -> NDArray[np.uint8]:
    """Reads the frames that extraction would store and `read_clip` would read, before JPEG.

    Where the clip reaches beyond the video, or into a gap in it, the nearest frame stands in, as in `clip_files`.

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
    with VideoStream(str(path)) as stream:
        try:
            for frame in stream.decode(start_s=Fraction(min(frames, default=0))):
                number = int(frame.time_s)
                if number > seconds[-1]:
                    break
                frames[number].append(frame)
        except av.FFmpegError as error:
            raise StepError(f"{path}: cannot be decoded at second {second} ({error.strerror})") from error
    images = []
    if not frames.get(second):
        raise StepError(f"{path}: has no frames in second {second}, which the clip of {second} needs")
    for offset, part in CLIP_PARTS:
        number = second + offset
        found = frames.get(number, [])
        if not found:
            found = _nearest_frame(frames, number, towards=second)
        images += [scaled(found[index].picture, "rgb24").to_ndarray() for index in resampled(len(found))[part]]
    clip: NDArray[np.uint8] = np.stack(images)
    assert len(clip) == CLIP_FRAMES
    return clip


def _nearest_frame(frames: dict[int, list[DecodedFrame]], number: int, *, towards: int) -> list[DecodedFrame]:
    """Finds what stands in for a second without frames: the last frame before it, or the first after it."""
    if number < towards:
        return next(frames[second] for second in sorted(frames) if second > number and frames[second])[:1]
    return next(frames[second] for second in sorted(frames, reverse=True) if second < number and frames[second])[-1:]
