"""What a container says of its frames' times, and how far that can be believed (torch-free)."""

import functools
import itertools
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from step.video.files import ffmpeg_name
from step.video.timeline import LONE_GAP_S, shorter_step

if TYPE_CHECKING:
    import av
    import av.container
    import av.video

FALLBACK_RATE = Fraction(25)
"""Frames a second where nothing states a rate, as FFmpeg assumes."""
_DILUTED = 2  # an average rate below the base rate by more than this factor has gaps in it
_HIGHEST_BASE_RATE = 61  # above it, a base rate is often a common multiple of several
_HIGHEST_DELAY_S = Fraction(4)  # between a frame's place in the file and its time, in any recording that is in order
_LAST_PACKETS = 3  # of which one that is cut off tells that the file is
_MPEG_WRAP_S = Fraction(2**33, 90000)


def is_untimed(container: "av.container.InputContainer") -> bool:
    """Whether a format holds frames without times: raw H.264, JPEG after JPEG."""
    from av.format import Flags

    format_ = container.format
    return bool(Flags(format_.flags) & Flags.no_timestamps) or format_.name.endswith("_pipe")


def stated_rate(video: "av.video.VideoStream", *, untimed: bool) -> tuple[Fraction, bool]:
    """Frames a second, and whether the file states it.

    The average is divided by gaps too; where the base rate is far above it, that one counts. Raw streams have a rate in
    their own header, which FFmpeg's average does not follow.
    """
    average, base = video.average_rate, video.guessed_rate
    if untimed:
        states = bool(video.codec_context.framerate)
        return (Fraction(base) if states and base else FALLBACK_RATE), states
    if average and base and base <= _HIGHEST_BASE_RATE and average * _DILUTED < base:
        return Fraction(base), True
    return Fraction(average or base or FALLBACK_RATE), bool(average or base)


def wrap_s(container: "av.container.InputContainer") -> Fraction | None:
    """After how many seconds a container's counter begins anew."""
    return _MPEG_WRAP_S if container.format.name in ("mpegts", "mpeg") else None


class StampReader:
    """Gives each decoded frame its stamp, in seconds, as far as there is one.

    Args:
        container, video: what is decoded.
        counted_rate: frames a second, by which frames are timed where the format holds no times; None where it does.

    Attributes:
        refused: packets that could not be decoded, after the first frame.
        is_cut: whether one of the last packets, or the last frame, is cut off.
    """

    def __init__(
        self,
        container: "av.container.InputContainer",
        video: "av.video.VideoStream",
        *,
        counted_rate: Fraction | None,
    ) -> None:
        self.refused = 0
        self._counted_rate = counted_rate
        self._number = 0  # of the next frame; one that is lost still takes its time
        # AVI numbers its chunks, empty ones among them, in the order of decoding. FFmpeg makes times of presentation
        # out of that, which are wrong where frames are reordered; these come out in order and take the numbers in turn.
        self._in_turn = container.format.name == "avi" and bool(video.codec_context.has_b_frames)
        self._sent: deque[Fraction | None] = deque()
        self._has_decoded = False
        self._latest: deque[bool] = deque(maxlen=_LAST_PACKETS)  # whether each packet is cut off
        self._latest_frame = False

    @property
    def is_cut(self) -> bool:
        """See the class."""
        return self._latest_frame or any(self._latest)

    def sent(self, packet: "av.Packet[av.video.VideoStream]") -> None:
        """Takes note of a packet before it is decoded."""
        if packet.size:
            self._latest.append(packet.is_corrupt)
            is_known = packet.dts is not None and packet.time_base is not None
            self._sent.append(packet.dts * packet.time_base if is_known else None)  # type: ignore[operator]

    def was_refused(self) -> None:
        """Takes note that a packet could not be decoded."""
        self.refused += self._has_decoded
        self._number += 1
        if self._sent:
            self._sent.popleft()

    def stamp_s(self, frame: "av.VideoFrame") -> Fraction | None:
        """The stamp of the next frame; None where there is none."""
        self._has_decoded, self._latest_frame = True, frame.is_corrupt
        number, self._number = self._number, self._number + 1
        in_turn = self._sent.popleft() if self._sent else None
        if self._counted_rate is not None:
            return number / self._counted_rate
        if self._in_turn or frame.pts is None or frame.time_base is None:
            return in_turn
        return frame.pts * frame.time_base


def goes_on_straight(path: Path, stream_index: int) -> bool:
    """Whether all stamps of a file grow, so that searching by them leads where reading on does.

    Looks at all packets once, without decoding them; an MP4's are in its index. Gaps are no matter, but for one before
    the last frame or after the first, which only reading on can tell from an outlier.
    """
    status = path.stat()
    return _goes_on_straight(path, stream_index, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _goes_on_straight(path: Path, stream_index: int, _size: int, _changed_ns: int) -> bool:
    import av
    from av.stream import Discard

    with av.open(ffmpeg_name(path), metadata_errors="replace") as container:
        video = container.streams[stream_index]
        if video.time_base is None:
            return False
        if container.format.name.startswith("mov"):
            entries = [entry.timestamp * video.time_base for entry in video.index_entries]
            if entries:
                return _grow(entries, None)
        for stream in container.streams:
            if stream.index != stream_index:
                stream.discard = Discard.all
        stamps: list[Fraction] = []
        try:
            for packet in container.demux(video):
                if not packet.size:
                    continue
                if packet.dts is None or packet.time_base is None:
                    return False
                late = 0 if packet.pts is None else packet.pts - packet.dts
                if abs(late * packet.time_base) > _HIGHEST_DELAY_S:
                    return False
                stamps.append(packet.dts * packet.time_base)
        except av.FFmpegError:
            return False
        return _grow(stamps, wrap_s(container))


def _grow(stamps_s: list[Fraction], wrap: Fraction | None) -> bool:
    steps_s = [after_s - before_s for before_s, after_s in itertools.pairwise(stamps_s)]
    if wrap is not None:
        # FFmpeg takes the first step back of a counter for its beginning anew.
        steps_s = [shorter_step(step_s, wrap) for step_s in steps_s]
    return all(step_s > 0 for step_s in steps_s) and all(step_s <= LONE_GAP_S for step_s in steps_s[:1] + steps_s[-1:])
