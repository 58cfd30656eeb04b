"""A key frame's clip straight from the video file, with no frames extracted before (torch-free)."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from step.config import CLIP_FPS
from step.data.frame_store import CLIP_PARTS, resampled
from step.data.picture import scaled
from step.errors import StepError
from step.video_stream import DecodedFrame, VideoStream


def read_video_clip(path: Path, second: int) -> NDArray[np.uint8]:
    """The frames that extraction would store and `read_clip` would read, before JPEG.

    Args:
        path: the video.
        second: t, of the key frame.

    Returns:
        uint8 [36, H, W, 3] RGB, H as in extracted frames.

    Raises:
        StepError: not a video, damaged, or without one of the clip's seconds.
    """
    seconds = [second + offset for offset, _ in CLIP_PARTS]
    frames: dict[int, list[DecodedFrame]] = {number: [] for number in seconds}
    if seconds[0] < 0:
        raise StepError(f"{path}: the clip of second {second} begins before the video; key frames begin at second 2")
    with VideoStream(str(path)) as stream:
        try:
            for frame in stream.decode(start_s=Fraction(seconds[0])):
                number = int(frame.time_s)
                if number > seconds[-1]:
                    break
                frames[number].append(frame)
        except av.FFmpegError as error:
            raise StepError(f"{path}: cannot be decoded at second {second} ({error.strerror})") from error
    pictures = []
    for offset, part in CLIP_PARTS:
        found = frames[second + offset]
        if not found:
            raise StepError(f"{path}: has no frames in second {second + offset}, which the clip of {second} needs")
        pictures += [scaled(found[index].picture, "rgb24").to_ndarray() for index in resampled(len(found))[part]]
    clip: NDArray[np.uint8] = np.stack(pictures)
    assert len(clip) == 3 * CLIP_FPS
    return clip
