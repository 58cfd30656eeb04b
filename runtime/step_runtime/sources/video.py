"""Video files and network streams, decoded with PyAV."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import av.container
import av.video
import numpy as np
from numpy.typing import NDArray

from step.errors import StepError
from step_runtime.clip_buffer import SourceFrame

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 30.0
_SHORTFALL_S = Fraction(1, 2)  # a file that ends this much before its stated end is called truncated
_FALLBACK_RATE = Fraction(25)
_MISSING_FRAMES, _MISSING_SHARE = 5, 0.05  # so few may be missing without damage: edit lists cut frames


def is_url(text: str) -> bool:
    """Whether a source is a URL rather than a path."""
    return bool(_URL.match(text))


def video_name(location: str) -> str:
    """File name without suffix; a URL's query does not count."""
    return Path(location.split("?")[0].rstrip("/") if is_url(location) else location).stem or "source"


class VideoSource:
    """A video file or URL; see `Source` for the attributes; `description` says codec, container, size and rate.

    Args:
        location: path or URL.

    Raises:
        StepError: missing, unreachable, not a video, or without a video stream.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.name = video_name(location)
        self.problem: str | None = None
        with _Stream(location) as stream:
            self.interval_s = 1 / stream.rate
            self.slack_s = stream.slack_s
            self.duration_s = stream.duration_s
            self.is_live = is_url(location) and stream.duration_s is None
            self._stated_frames = stream.stated_frames
            self.description = stream.description

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`."""
        self.problem = None
        count = 0
        end_s = Fraction(0)
        with _Stream(self.location) as stream:
            try:
                for frame in stream.decode():
                    count += 1
                    end_s = frame.time_s + self.interval_s
                    yield frame
            except av.FFmpegError as error:
                self.problem = f"{self.location}: broke at {float(end_s):.2f} s ({error.strerror})"
        if not count:
            raise StepError(f"{self.location}: no frame could be decoded; the file is empty or damaged")
        if self.problem is None and self.duration_s is not None and self.duration_s - end_s > _SHORTFALL_S:
            self.problem = (
                f"{self.location}: broke at {float(end_s):.2f} s of {float(self.duration_s):.2f} s (truncated file?)"
            )
        missing = self._stated_frames - count
        if self.problem is None and missing > max(_MISSING_FRAMES, _MISSING_SHARE * self._stated_frames):
            self.problem = f"{self.location}: damaged: {missing} of {self._stated_frames} frames could not be decoded"


class _Stream:
    """An open container and its first video stream."""

    def __init__(self, location: str) -> None:
        if not is_url(location):
            path = Path(location)
            if not path.is_file():
                raise StepError(f"{location}: no such file")
            if not path.stat().st_size:
                raise StepError(f"{location}: the file is empty (0 bytes)")
        options = {"rtsp_transport": "tcp"} if location.lower().startswith("rtsp") else {}
        try:
            self._container = av.open(location, options=options, timeout=(_OPEN_TIMEOUT_S, _READ_TIMEOUT_S))
        except av.FFmpegError as error:
            hint = "check that it is reachable" if is_url(location) else "not a video, or damaged"
            raise StepError(f"{location}: cannot open: {error.strerror}; {hint}") from error
        if not self._container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            self._container.close()
            raise StepError(f"{location}: no video stream (found: {kinds})")
        self._video: av.video.VideoStream = self._container.streams.video[0]
        self._video.thread_type = "AUTO"
        self.rate = Fraction(self._video.average_rate or self._video.guessed_rate or _FALLBACK_RATE)
        # AVI stores no timestamps, only a rate; what the demuxer makes up for it is not in order.
        self._by_count = self._container.format.name == "avi"
        time_base = self._video.time_base
        exact = self._by_count or time_base is None or (1 / self.rate / time_base).denominator == 1
        self.slack_s = Fraction(0) if exact or time_base is None else min(time_base, 1 / self.rate / 4)
        self.stated_frames = self._video.frames  # 0 where the container does not say
        self.duration_s = self._stated_duration_s()
        codec = self._video.codec_context
        self.description = (
            f"{codec.codec.long_name or codec.name} in {self._container.format.name.split(',')[0]}, "
            f"{codec.width}x{codec.height} {codec.pix_fmt}, {float(self.rate):.2f} fps"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._container.close()

    def decode(self) -> Iterator[SourceFrame]:
        """Frames in order of presentation; damaged packets are skipped.

        Raises:
            av.FFmpegError: the container cannot be read on.
        """
        first_s: Fraction | None = None
        previous_s: Fraction | None = None
        index = 0
        for packet in self._container.demux(self._video):
            try:
                decoded = packet.decode()
            except av.InvalidDataError:
                index += self._by_count  # where frames are counted, one that is lost still takes its time
                continue
            for frame in decoded:
                time_s = index / self.rate if self._by_count else self._time_s(frame, previous_s)
                first_s = time_s if first_s is None else first_s
                previous_s = time_s
                yield _source_frame(frame, time_s - first_s, index)
                index += 1

    def _time_s(self, frame: av.VideoFrame, previous_s: Fraction | None) -> Fraction:
        """The frame's timestamp, or one interval after the frame before it where that is missing or runs backwards."""
        if frame.pts is not None and frame.time_base is not None:
            time_s = frame.pts * frame.time_base
            if previous_s is None or time_s > previous_s:
                return time_s
        return Fraction(0) if previous_s is None else previous_s + 1 / self.rate

    def _stated_duration_s(self) -> Fraction | None:
        if self._by_count and self.stated_frames:  # FFmpeg fits an AVI's duration to what is left of the file
            return self.stated_frames / self.rate
        if self._video.duration is not None and self._video.time_base is not None:
            return self._video.duration * self._video.time_base
        others = len(self._container.streams) > len(self._container.streams.video)
        if self._container.duration is None or others:  # the longest stream's, perhaps the sound's
            return None
        return Fraction(self._container.duration, av.time_base)


def _source_frame(frame: av.VideoFrame, time_s: Fraction, index: int) -> SourceFrame:
    turns = round(frame.rotation / 90) % 4
    width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)

    def rgb() -> NDArray[np.uint8]:
        pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        return np.rot90(pixels, turns) if turns else pixels

    return SourceFrame(time_s=time_s, index=index, width_px=width, height_px=height, rgb=rgb)
