"""Videos to JPEG frames, a folder a second, without an ffmpeg binary (torch-free).

A frame belongs to the second in which it is shown. Frames are 360 pixels high, as the release has them, in the quality
of ffmpeg's `-q:v 4`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import av.video
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace

from step.data.frame_store import FrameIndex, frame_file, is_complete, read_index, second_folder, write_index
from step.errors import StepError
from step.files import atomic_path
from step.video_stream import DecodedFrame, VideoStream

HEIGHT_PX = 360
_QUALITY = "4"  # of ffmpeg's -q:v, 1 (best) to 31
_TIME_BASE = Fraction(1, 25)  # of single pictures: anything will do
_MISSING_FRAMES, _MISSING_SHARE = 5, 0.05  # so few may be missing without damage: edit lists cut frames


@dataclass(frozen=True)
class Extracted:
    """What became of one video.

    Attributes:
        video: its name.
        seconds: that are there now, of those wanted.
        written: seconds that were written now; the others were there already.
        frames: in those seconds.
    """

    video: str
    seconds: int
    written: int
    frames: int


def extract(path: Path, root: Path, *, name: str | None = None, seconds: frozenset[int] | None = None) -> Extracted:
    """Extracts one video; seconds that are there and whole are left as they are.

    Args:
        path: the video.
        root: folder of the frames; the video gets a folder in it.
        name: of that folder; None for the file's name without suffix.
        seconds: which to extract; None for all.

    Raises:
        StepError: not a video, damaged, shorter than the wanted seconds, or nowhere to write.
    """
    name = name if name is not None else path.stem
    index = read_index(root, name)
    source_bytes = path.stat().st_size if path.is_file() else 0
    if index.source_bytes != source_bytes:
        index = FrameIndex(source_bytes=source_bytes)  # another video: nothing of the old one counts
    present = {s: n for s, n in index.counts.items() if is_complete(second_folder(root, name, s), n)}
    wanted = frozenset(index.counts) if seconds is None and index.is_whole else seconds
    written = 0
    if wanted is None or not wanted <= frozenset(present):
        missing = None if wanted is None else wanted - frozenset(present)
        for second, frames in _decode_seconds(path, missing):
            if present.get(second) != len(frames):
                _write_second(second_folder(root, name, second), frames)
                written += 1
            present[second] = len(frames)
            index = replace(index, counts={**index.counts, second: len(frames)})
            write_index(root, name, index)
        if wanted is None:
            write_index(root, name, replace(index, is_whole=True))
    lost = sorted(wanted - frozenset(present)) if wanted is not None else []
    if lost:
        raise StepError(f"{path}: has no second {lost[0]} ({len(lost)} of the wanted seconds are missing)")
    counts = [count for second, count in present.items() if wanted is None or second in wanted]
    return Extracted(video=name, seconds=len(counts), written=written, frames=sum(counts))


def _write_second(target: Path, frames: list[DecodedFrame]) -> None:
    with atomic_path(target) as folder:
        folder.mkdir()
        for index, frame in enumerate(frames):
            frame_file(folder, index).write_bytes(encode_jpeg(frame.picture))


def _decode_seconds(path: Path, seconds: frozenset[int] | None) -> Iterator[tuple[int, list[DecodedFrame]]]:
    """The frames of each wanted second, in order.

    Raises:
        StepError: the video cannot be read, breaks off, or lacks many frames.
    """
    current, frames, count = -1, list[DecodedFrame](), 0
    with VideoStream(str(path)) as stream:
        start_s = None if not seconds else Fraction(min(seconds))
        try:
            for frame in stream.decode(start_s=start_s):
                count += 1
                second = int(frame.time_s)
                if second != current:
                    if frames:
                        yield current, frames
                    current, frames = second, []
                    if seconds is not None and second > max(seconds):
                        return
                if seconds is None or second in seconds:
                    frames.append(frame)
        except av.FFmpegError as error:
            raise StepError(f"{path}: broke in second {current} ({error.strerror}); it is damaged") from error
        if frames:
            yield current, frames
        if not count and start_s is None:
            raise StepError(f"{path}: no frame could be decoded; the file is empty or damaged")
        lost = stream.stated_frames - count if start_s is None else 0
        if lost > max(_MISSING_FRAMES, _MISSING_SHARE * stream.stated_frames):
            raise StepError(f"{path}: damaged: {lost} of {stream.stated_frames} frames could not be decoded")


def encode_jpeg(frame: av.VideoFrame) -> bytes:
    """A decoded frame as JPEG, 360 pixels high."""
    width = 2 * round(frame.width * HEIGHT_PX / frame.height / 2)
    # JPEG is full range and BT.601 whatever the video is; said aloud, because nothing converts it otherwise.
    picture = frame.reformat(
        width=width,
        height=HEIGHT_PX,
        format="yuvj420p",
        interpolation="BICUBIC",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG,
    )
    picture.pts = 0
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, HEIGHT_PX, "yuvj420p"
    encoder.time_base, encoder.options = _TIME_BASE, {"qmin": _QUALITY, "qmax": _QUALITY}
    return b"".join(bytes(packet) for packet in (*encoder.encode(picture), *encoder.encode(None)))
