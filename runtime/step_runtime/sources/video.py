"""Video files, decoded with PyAV; `stream` has what is behind URLs."""

from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from step.errors import StepError
from step.video.files import VIDEO_SUFFIXES, is_url
from step.video_stream import DecodedFrame, VideoStream
from step_runtime.sources.base import SourceFrame


def video_name(location: str) -> str:
    """File name without suffix; of a URL that names no video file: host, port and the last part of its path."""
    if not is_url(location):
        return Path(location).stem or "source"
    parts = urlsplit(location)
    path = PurePosixPath(PurePosixPath(unquote(parts.path)).name)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return path.stem
    host = parts.netloc.rpartition("@")[2].replace(":", "-")
    return "-".join(filter(None, (host, path.name))) or "source"


class VideoSource:
    """A video file; see `Source` for the attributes; `description` says codec, container, size and rate.

    Args:
        location: its path.
        shown: what messages call it; the location if None.
        formats: see `VideoStream`.

    Raises:
        StepError: missing, not a video, or without a video stream.
    """

    is_live = False

    def __init__(self, location: str, *, shown: str | None = None, formats: Collection[str] = ()) -> None:
        self.location = location
        self._shown = shown or location
        self._formats = formats
        self.name = video_name(location)
        self.problem: str | None = None
        self.notes: list[str] = []
        with self._open() as stream:
            self.interval_s = 1 / stream.rate
            self.slack_s = stream.slack_s
            self.duration_s = stream.duration_s
            self.description = stream.description

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`."""
        import av

        self.problem = None
        end_s: Fraction | None = None
        with self._open() as stream:
            try:
                for frame in stream.decode():
                    end_s = frame.time_s + self.interval_s
                    yield source_frame(frame)
                problem = stream.problem
            except av.FFmpegError as error:
                problem = f"broke at {float(end_s or 0):.2f} s ({error.strerror})"
        if end_s is None:
            raise StepError(f"{self._shown}: no frame could be decoded; the file is empty or damaged")
        self.problem = None if problem is None else f"{self._shown}: {problem}"

    def _open(self) -> VideoStream:
        return VideoStream(self.location, shown=self._shown, formats=self._formats, say=self._note)

    def _note(self, line: str) -> None:
        if line not in self.notes:  # each reading says it again
            self.notes.append(line)


def source_frame(frame: DecodedFrame) -> SourceFrame:
    """A decoder's frame as sources give it."""
    return SourceFrame(
        time_s=frame.time_s,
        index=frame.index,
        width_px=frame.picture.width,
        height_px=frame.picture.height,
        rgb=frame.rgb,
        starts_segment=frame.starts_segment,
    )
