"""Decoding a video file or network stream with PyAV: exact times, whatever the container says (torch-free).

PyAV is imported when a video is opened: programs that work on extracted frames run where it is not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from step.errors import StepError

if TYPE_CHECKING:
    import av
    import av.video

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 30.0
_FALLBACK_RATE = Fraction(25)
_SEEK_MARGIN_S = Fraction(1, 2)  # pictures are stored in another order than they are shown in


@dataclass(frozen=True)
class DecodedFrame:
    """A frame as the decoder gave it.

    Attributes:
        picture: PyAV's frame.
        time_s: exact presentation time, from the first frame of the stream.
        index: position among the decoded frames, from where decoding began.
        turns: quarter turns, anticlockwise, that the container asks for.
    """

    picture: "av.VideoFrame"
    time_s: Fraction
    index: int
    turns: int

    def rgb(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], turned."""
        pixels = np.asarray(self.picture.to_ndarray(format="rgb24"), np.uint8)
        return np.rot90(pixels, self.turns) if self.turns else pixels


def is_url(text: str) -> bool:
    """Whether a source is a URL rather than a path."""
    return bool(_URL.match(text))


class VideoStream:
    """An open container and its first video stream.

    Args:
        location: path or URL.
        timeouts_s: after which opening a URL, and waiting for its next data, are given up.
        shown: what messages call it; the location if None.

    Attributes:
        rate: frames a second, as stated.
        slack_s: how far a frame's time may be from its exact one, because the container rounds.
        stated_frames: number of frames; 0 where the container does not say.
        duration_s: None where the container does not say.
        size_bytes: of the file, not above 0 where that is not known.
        description: codec, container, size and rate.

    Raises:
        StepError: missing, unreachable, not a video, or without a video stream.
    """

    def __init__(
        self,
        location: str,
        *,
        timeouts_s: tuple[float, float] = (_OPEN_TIMEOUT_S, _READ_TIMEOUT_S),
        shown: str | None = None,
    ) -> None:
        import av

        shown = shown or location
        if not is_url(location):
            path = Path(location)
            if not path.is_file():
                raise StepError(f"{location}: no such file")
            if not path.stat().st_size:
                raise StepError(f"{location}: the file is empty (0 bytes)")
        options = {"rtsp_transport": "tcp"} if location.lower().startswith("rtsp") else {}
        try:
            # Titles and tags are in any encoding; nothing reads them.
            self._container = av.open(location, options=options, timeout=timeouts_s, metadata_errors="replace")
        except av.FFmpegError as error:
            hint = "check that it is reachable" if is_url(location) else "not a video, or damaged"
            # Its own word for a time limit of ours is "Immediate exit requested".
            timed_out = isinstance(error, av.error.ExitError)
            reason = f"no answer in {timeouts_s[0]:g} s" if timed_out else error.strerror
            raise StepError(f"{shown}: cannot open: {reason}; {hint}") from error
        if not self._container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            self._container.close()
            raise StepError(f"{shown}: no video stream (found: {kinds})")
        self._video: av.video.VideoStream = self._container.streams.video[0]
        if self._video.codec_context is None:
            self._container.close()
            raise StepError(
                f"{shown}: FFmpeg has no decoder for its video here; convert it: ffmpeg -i IN -c:v libx264 OUT.mp4, or "
                "copy it again, if it should be a common kind"
            )
        self._video.thread_type = "AUTO"
        self.rate = Fraction(self._video.average_rate or self._video.guessed_rate or _FALLBACK_RATE)
        # AVI stores no timestamps, only a rate; what the demuxer makes up for it is not in order.
        self._by_count = self._container.format.name == "avi"
        time_base = self._video.time_base
        exact = self._by_count or time_base is None or (1 / self.rate / time_base).denominator == 1
        self.slack_s = Fraction(0) if exact or time_base is None else min(time_base, 1 / self.rate / 4)
        self.stated_frames = self._video.frames  # 0 where the container does not say
        self.duration_s = self._stated_duration_s()
        self.size_bytes = self._container.size
        codec = self._video.codec_context
        self.description = (
            f"{codec.codec.long_name or codec.name} in {self._container.format.name.split(',')[0]}, "
            f"{codec.width}x{codec.height} {codec.pix_fmt}, {float(self.rate):.2f} fps"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the container."""
        self._container.close()

    def decode(self, *, start_s: Fraction | None = None) -> Iterator[DecodedFrame]:
        """Frames in order of presentation; damaged packets are skipped.

        Args:
            start_s: earlier frames are not given out; where the container can be searched, they are not decoded either.

        Raises:
            av.FFmpegError: the container cannot be read on.
        """
        import av

        first_s = self._seek(start_s) if start_s is not None else None
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
                if start_s is None or time_s - first_s >= start_s:
                    yield DecodedFrame(frame, time_s - first_s, index, round(frame.rotation / 90) % 4)
                index += 1

    def _seek(self, start_s: Fraction) -> Fraction | None:
        """Goes to the last key picture before a time; returns the stream's first time, None to read from the start."""
        import av

        time_base, first = self._video.time_base, self._video.start_time
        if self._by_count or time_base is None or first is None or start_s <= 1:
            return None
        target = first + int((start_s - _SEEK_MARGIN_S) / time_base)
        try:
            self._container.seek(target, stream=self._video, backward=True)
        except av.FFmpegError:
            return None  # cannot be searched: reading goes on from the start
        return first * time_base

    def _time_s(self, frame: "av.VideoFrame", previous_s: Fraction | None) -> Fraction:
        """The frame's timestamp, or one interval after the frame before it where that is missing or runs backwards."""
        if frame.pts is not None and frame.time_base is not None:
            time_s = frame.pts * frame.time_base
            if previous_s is None or time_s > previous_s:
                return time_s
        return Fraction(0) if previous_s is None else previous_s + 1 / self.rate

    def _stated_duration_s(self) -> Fraction | None:
        import av

        if self._by_count and self.stated_frames:  # FFmpeg fits an AVI's duration to what is left of the file
            return self.stated_frames / self.rate
        if self._video.duration is not None and self._video.time_base is not None:
            return self._video.duration * self._video.time_base
        others = len(self._container.streams) > len(self._container.streams.video)
        if self._container.duration is None or others:  # the longest stream's, perhaps the sound's
            return None
        return Fraction(self._container.duration, av.time_base)
