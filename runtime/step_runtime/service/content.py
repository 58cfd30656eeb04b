"""What a client sends, opened as a source of frames."""

import contextlib
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from step.bundles.service_spec import FRAMES, VIDEO
from step.config import StepConfig
from step.files.atomic import cannot_write
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.clips.key_frame import Clip
from step_runtime.service.request import FrameArray
from step_runtime.sources.base import Source, SourceFrame
from step_runtime.sources.frame_folder import image_frame
from step_runtime.sources.video import VideoSource

CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "nut", "rm", "ivf", "obu", "dv", "gif"),
    *("h264", "hevc", "m4v", "mpegvideo", "mjpeg", "vc1", "av1", "yuv4mpegpipe", "wtv", "gxf"),
)
"""FFmpeg's names of formats that hold the film themselves.

Others, such as playlists, name files and addresses instead, and FFmpeg would open those on the server: nobody who may
send a video may thereby read what lies there.
"""


class FrameArraySource:
    """Frames of a request; see `Source` for the attributes.

    Args:
        content: the frames and their rate.
    """

    slack_s = Fraction(0)
    is_live = False

    def __init__(self, content: FrameArray) -> None:
        self.name = FRAMES
        self.problem: str | None = None
        self.notes: list[str] = []
        self.interval_s = 1 / content.fps
        self.duration_s: Fraction | None = len(content.frames) / content.fps
        self._frames = content.frames

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`."""
        for index, pixels in enumerate(self._frames):
            yield image_frame(pixels, index * self.interval_s, index)


@contextlib.contextmanager
def open_content(content: bytes | FrameArray) -> Iterator[Source]:
    """Opens it; an encoded video lies in a temporary file meanwhile, since many formats have to be searched.

    Raises:
        StepError: it is no video, or one whose format is not taken, or there is no room for it.
    """
    if isinstance(content, FrameArray):
        yield FrameArraySource(content)
        return
    with tempfile.TemporaryDirectory(prefix="step-service-") as folder:
        path = Path(folder, VIDEO)
        try:
            path.write_bytes(content)
        except OSError as error:
            raise cannot_write(path, error) from error
        source = VideoSource(str(path), shown=VIDEO, formats=CONTAINERS)
        source.name = VIDEO
        yield source


def cut_clips(source: Source, *, config: StepConfig, every_s: Fraction) -> Iterator[Clip]:
    """Returns the clips around a source's key frames, as `Detector.run` cuts them, one after the other.

    Raises:
        StepError: nothing can be decoded.
    """
    buffer = ClipBuffer(config=config, every_s=every_s, interval_s=source.interval_s, slack_s=source.slack_s)
    for frame in source.frames():
        yield from buffer.add(frame)
    yield from buffer.finish()
