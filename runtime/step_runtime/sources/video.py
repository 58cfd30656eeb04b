"""Video files, decoded with PyAV; `stream` has what is behind URLs."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from step.errors import StepError
from step.video_stream import DecodedFrame, VideoStream, is_url
from step_runtime.clip_buffer import SourceFrame

_SHORTFALL_S = Fraction(1, 2)  # a file that ends this much before its stated end is called truncated
_MISSING_FRAMES, _MISSING_SHARE = 5, 0.05  # so few may be missing without damage: edit lists cut frames


def video_name(location: str) -> str:
    """File name without suffix; a URL's query does not count."""
    return Path(location.split("?")[0].rstrip("/") if is_url(location) else location).stem or "source"


class VideoSource:
    """A video file; see `Source` for the attributes; `description` says codec, container, size and rate.

    Args:
        location: its path.

    Attributes:
        stated_frames: number of frames; 0 where the container does not say.

    Raises:
        StepError: missing, not a video, or without a video stream.
    """

    is_live = False

    def __init__(self, location: str) -> None:
        self.location = location
        self.name = video_name(location)
        self.problem: str | None = None
        with VideoStream(location) as stream:
            self.interval_s = 1 / stream.rate
            self.slack_s = stream.slack_s
            self.duration_s = stream.duration_s
            self.stated_frames = stream.stated_frames
            self.description = stream.description

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`."""
        import av

        self.problem = None
        count = 0
        end_s = Fraction(0)
        with VideoStream(self.location) as stream:
            try:
                for frame in stream.decode():
                    count += 1
                    end_s = frame.time_s + self.interval_s
                    yield source_frame(frame)
            except av.FFmpegError as error:
                self.problem = f"{self.location}: broke at {float(end_s):.2f} s ({error.strerror})"
        if not count:
            raise StepError(f"{self.location}: no frame could be decoded; the file is empty or damaged")
        if self.problem is None and self.duration_s is not None and self.duration_s - end_s > _SHORTFALL_S:
            self.problem = (
                f"{self.location}: broke at {float(end_s):.2f} s of {float(self.duration_s):.2f} s (truncated file?)"
            )
        missing = self.stated_frames - count
        if self.problem is None and missing > max(_MISSING_FRAMES, _MISSING_SHARE * self.stated_frames):
            self.problem = f"{self.location}: damaged: {missing} of {self.stated_frames} frames could not be decoded"


def source_frame(frame: DecodedFrame) -> SourceFrame:
    """A decoder's frame as sources give it."""
    width, height = frame.picture.width, frame.picture.height
    if frame.turns % 2:
        width, height = height, width
    return SourceFrame(time_s=frame.time_s, index=frame.index, width_px=width, height_px=height, rgb=frame.rgb)
