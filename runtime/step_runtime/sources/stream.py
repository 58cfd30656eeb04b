"""Network streams and videos behind URLs, decoded with PyAV."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from step.errors import StepError
from step.video_stream import VideoStream
from step_runtime.sources.base import SourceFrame
from step_runtime.sources.live import OPEN_TIMEOUT_S
from step_runtime.sources.video import source_frame

_ALWAYS_LIVE = frozenset(
    [
        "rtsp",
        "rtsps",
        "rtspu",
        "rtspt",
        "rtmp",
        "rtmps",
        "rtmpe",
        "rtmpt",
        "rtmpte",
        "rtmpts",
        "srt",
        "rist",
        "udp",
        "udplite",
        "rtp",
        "srtp",
        "tcp",
        "mms",
        "mmsh",
        "mmst",
    ]
)
_PASSWORD = re.compile(r"^(\w[\w+.-]*://[^/@]*?):[^/]*@")


def shown_url(url: str) -> str:
    """The URL for messages and files, without its password."""
    return _PASSWORD.sub(r"\1:***@", url)


def is_live_stream(url: str, *, duration_s: Fraction | None, size_bytes: int) -> bool:
    """Whether frames come in their own time and will not come again.

    Args:
        url: what protocol it is tells most.
        duration_s: as the container states it, None if it does not.
        size_bytes: of the whole, as the server states it; not above 0 if it does not.

    What RTSP states is no proof: recorders give a range for what they send at the camera's pace. HTTP serves both.
    """
    if url.partition(":")[0].lower() in _ALWAYS_LIVE:
        return True
    return duration_s is None and size_bytes <= 0


class StreamConnection:
    """An open URL; see `Connection`.

    Args:
        url: what to open.
        stall_timeout_s: seconds without data after which the library gives up.
        say: is called with what was chosen or bounded, a line each.

    Raises:
        StepError: unreachable, not a video, or without a video stream.
    """

    def __init__(self, url: str, *, stall_timeout_s: float, say: Callable[[str], None] = lambda _line: None) -> None:
        self._shown = shown_url(url)
        # The library is a little more patient than whoever waits for it, and says it.
        timeouts_s = (OPEN_TIMEOUT_S, stall_timeout_s + 1)
        stream = VideoStream(url, timeouts_s=timeouts_s, shown=self._shown, say=say)
        self.is_live = is_live_stream(url, duration_s=stream.duration_s, size_bytes=stream.size_bytes)
        if self.is_live and stream.is_untimed:
            # FFmpeg would count such frames at 25 a second; whether that is done is reported when opening.
            stream.close()
            stream = VideoStream(url, timeouts_s=timeouts_s, shown=self._shown, by_arrival=True)
            say(f"{self._shown}: its format holds no times; frames are timed as they come")
        self._stream = stream
        self.interval_s = 1 / stream.rate
        self.slack_s = stream.slack_s
        self.duration_s = stream.duration_s
        self.description = stream.description

    def frames(self) -> Iterator[SourceFrame]:
        """See `Connection.frames`."""
        import av

        try:
            for frame in self._stream.decode():
                yield source_frame(frame)
        except av.FFmpegError as error:
            raise StepError(str(error.strerror)) from error
        if self._stream.problem is not None:
            raise StepError(f"{self._shown}: {self._stream.problem}")

    def close(self) -> None:
        """See `Connection.close`."""
        self._stream.close()
