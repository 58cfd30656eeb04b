"""Decoding a video file or network stream with PyAV: one reader for everything that looks at videos (torch-free).

It takes the film among several streams (`step.video.selection`), gives each frame its time (`step.video.timeline`), and
shows it upright (`step.video.orientation`), in the colours that the file states. PyAV is imported when a video is
opened: programs that work on extracted frames run where it is not.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from step.video.files import is_url, local_path
from step.video.opening import open_film
from step.video.orientation import Turner
from step.video.selection import describe_choice
from step.video.stamps import StampReader, goes_on_straight, is_untimed, stated_rate, wrap_s
from step.video.timeline import Jump, Placed, Timeline

if TYPE_CHECKING:
    import av

_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 30.0
_SEEK_MARGINS_S = (Fraction(1, 2), Fraction(4), Fraction(16))  # the nearest key frame may lie far before
_REFUSED_FRAMES, _REFUSED_SHARE = 5, 0.05  # so few that are lost do not make a recording a damaged one
_SHORT_S = Fraction(1, 2)  # what ends this much before its stated end is mentioned


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame, upright.

    Attributes:
        picture: PyAV's frame.
        time_s: exact presentation time; see `step.video.timeline`.
        index: position among the decoded frames, from where decoding began.
        starts_segment: whether stamps jumped before this frame, so that no frame before it may stand in for the gap.
    """

    picture: "av.VideoFrame"
    time_s: Fraction
    index: int
    starts_segment: bool = False

    def rgb(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], by the matrix and range that the file states; by BT.601 where it states none."""
        return np.asarray(self.picture.to_ndarray(format="rgb24"), np.uint8)


class VideoStream:
    """An open container and the film in it.

    Args:
        location: path or URL.
        timeouts_s: after which opening a URL, and waiting for its next data, are given up.
        shown: what messages call it; the location if None.
        formats: FFmpeg's names of the formats that may be opened; empty for all. Some, such as playlists, have FFmpeg
            open what they name.
        by_arrival: whether frames are stamped with this machine's clock when they come, whatever the format says.
        say: is called with one line on what was chosen or bounded: a stream, a rate where none is stated, gaps.

    Attributes:
        rate: frames a second, as stated.
        is_untimed: whether the format holds no times, only frames.
        slack_s: how far a frame's time may be from its exact one, because the container rounds.
        stated_frames: number of frames, 0 where the container does not say; a hint, no more.
        duration_s: None where the container does not say; a hint as well.
        size_bytes: of the file, not above 0 where that is not known.
        description: codec, container, size and rate.
        problem: after decoding, why it ended early or lacks frames, as FFmpeg says; None if it does not.

    Raises:
        StepError: missing, unreachable, not a video, or without a video stream.
    """

    def __init__(
        self,
        location: str,
        *,
        timeouts_s: tuple[float, float] = (_OPEN_TIMEOUT_S, _READ_TIMEOUT_S),
        shown: str | None = None,
        formats: Collection[str] = (),
        by_arrival: bool = False,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._location, self._timeouts_s, self._by_arrival = location, timeouts_s, by_arrival
        self._formats = formats
        self._shown = shown or location
        self._say = say
        self.problem: str | None = None
        self._container, films = self._open()
        self._video = video = films[0]
        choice = describe_choice(films)
        if choice is not None:
            say(f"{self._shown}: {choice}")
        self.is_untimed = not by_arrival and is_untimed(self._container)
        self.rate, states_rate = stated_rate(video, untimed=self.is_untimed)
        if self.is_untimed and not states_rate and not is_url(location):
            say(f"{self._shown}: states neither times nor a rate; {float(self.rate):g} frames a second are assumed")
        time_base = video.time_base
        exact = self.is_untimed or time_base is None or (1 / self.rate / time_base).denominator == 1
        self.slack_s = Fraction(0) if exact or time_base is None else min(time_base, 1 / self.rate / 4)
        self.stated_frames = video.frames
        self.duration_s = self._stated_duration_s()
        self.size_bytes = self._container.size
        codec = video.codec_context
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
        """Frames in order of presentation; damaged packets are skipped, and counted in `problem`.

        Args:
            start_s: earlier frames are not given out; where the container can be searched, they are not decoded either.
                Times are the same either way.

        Raises:
            av.FFmpegError: the container cannot be read on.
        """
        self.problem = None
        turner = Turner()
        frames = self._placed(None) if start_s is None else self._placed_from(start_s)
        for index, placed in enumerate(frames):
            if placed.jump is not None:
                self._say(f"{self._shown}: {_describe_jump(placed.jump)}")
            if start_s is None or placed.time_s >= start_s:
                upright = turner.upright(placed.item)
                yield DecodedFrame(upright, placed.time_s, index, placed.jump is not None)

    def _open(self) -> "tuple[av.container.InputContainer, list[av.video.VideoStream]]":
        options = {"use_wallclock_as_timestamps": "1"} if self._by_arrival else {}
        if self._formats:
            options["format_whitelist"] = ",".join(self._formats)
        return open_film(self._location, shown=self._shown, timeouts_s=self._timeouts_s, options=options)

    def _stamps(self) -> StampReader:
        return StampReader(self._container, self._video, counted_rate=self.rate if self.is_untimed else None)

    def _timeline(self, zero_s: Fraction | None = None) -> "Timeline[av.VideoFrame]":
        return Timeline(1 / self.rate, zero_s=zero_s, wrap_s=wrap_s(self._container))

    def _placed(self, zero_s: Fraction | None) -> "Generator[Placed[av.VideoFrame]]":
        """Frames with their times, from where the container stands to its end.

        Args:
            zero_s: the stamp of time zero; None at the beginning, where the first frame gives it.
        """
        timeline, stamps = self._timeline(zero_s), self._stamps()
        decoded, last_s = 0, Fraction(0)
        for frame, stamp_s in self._decoded(stamps):
            for placed in timeline.add(frame, stamp_s):
                decoded, last_s = decoded + 1, placed.time_s
                yield placed
        for placed in timeline.finish():
            decoded, last_s = decoded + 1, placed.time_s
            yield placed
        if timeline.outliers:
            count = "1 frame has a stamp" if timeline.outliers == 1 else f"{timeline.outliers} frames have stamps"
            self._say(f"{self._shown}: {count} not in line with the others; placed in between")
        self._judge_end(decoded, last_s + 1 / self.rate, stamps, hidden_s=self._hidden_s(timeline))

    def _decoded(self, stamps: StampReader) -> "Iterator[tuple[av.VideoFrame, Fraction | None]]":
        """Frames and their stamps; what cannot be decoded is reported to `stamps`."""
        import av

        for packet in self._container.demux(self._video):
            stamps.sent(packet)
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                stamps.was_refused()
                continue
            for frame in frames:
                yield frame, stamps.stamp_s(frame)

    def _hidden_s(self, timeline: "Timeline[av.VideoFrame]") -> Fraction | None:
        """How much of what the container states lies before time zero; None where its statement is not to be had."""
        if timeline.outliers or timeline.zero_s is None or self._video.time_base is None:
            return None  # FFmpeg makes statements out of outliers, too
        start = self._video.start_time
        return Fraction(0) if start is None else timeline.zero_s - start * self._video.time_base

    def _judge_end(self, decoded: int, end_s: Fraction, stamps: StampReader, *, hidden_s: Fraction | None) -> None:
        """What FFmpeg said of the end and of the frames in between; what the container states is no proof of damage."""
        whole = "" if self.duration_s is None else f" of {float(self.duration_s):.2f} s"
        if stamps.is_cut:
            self.problem = f"broke at {float(end_s):.2f} s{whole}, in the middle of a frame (truncated file?)"
        elif stamps.refused > max(_REFUSED_FRAMES, _REFUSED_SHARE * (decoded + stamps.refused)):
            self.problem = f"damaged: {stamps.refused} of {decoded + stamps.refused} frames could not be decoded"
        elif stamps.refused:
            count = "1 frame" if stamps.refused == 1 else f"{stamps.refused} frames"
            self._say(f"{self._shown}: skipped {count} that could not be decoded")
        if self.problem is not None or hidden_s is None or self.is_untimed:
            return
        if hidden_s > _SHORT_S:
            self._say(
                f"{self._shown}: the first {float(hidden_s):.2f} s cannot be shown (cut from a longer recording?); "
                "time zero is the first frame after them"
            )
        if self.duration_s is not None and self.duration_s - hidden_s - end_s > _SHORT_S:
            stated = float(self.duration_s - hidden_s)
            self._say(f"{self._shown}: ends at {float(end_s):.2f} s; its header states {stated:.2f} s")

    def _placed_from(self, start_s: Fraction) -> "Generator[Placed[av.VideoFrame]]":
        """Frames from one before a time on, found by searching where that leads to the same times as reading on."""
        zero_s = self._find_zero_s() if start_s > _SEEK_MARGINS_S[0] and self._is_searchable() else None
        for margin_s in _SEEK_MARGINS_S:
            if zero_s is None or margin_s >= start_s or not self._search(zero_s + start_s - margin_s):
                break
            frames = self._placed(zero_s)
            first = next(frames, None)
            if first is not None and first.time_s <= start_s:
                yield first
                yield from frames
                return
            frames.close()
        if zero_s is not None:  # what was searched stands anywhere
            self._container.close()
            self._container, films = self._open()
            self._video = films[0]
        yield from self._placed(None)

    def _is_searchable(self) -> bool:
        if self.is_untimed or self._video.time_base is None or is_url(self._location):
            return False
        is_reordered_avi = self._container.format.name == "avi" and bool(self._video.codec_context.has_b_frames)
        return not is_reordered_avi and goes_on_straight(local_path(self._location).absolute(), self._video.index)

    def _find_zero_s(self) -> Fraction | None:
        """The stamp of time zero: what the first frames tell, wherever the container says that it begins."""
        timeline, stamps = self._timeline(), self._stamps()
        for frame, stamp_s in self._decoded(stamps):
            timeline.add(frame, stamp_s)
            if timeline.zero_s is not None:
                return timeline.zero_s
        timeline.finish()
        return timeline.zero_s

    def _search(self, stamp_s: Fraction) -> bool:
        """Goes to the last key frame before a stamp; False where the container cannot be searched."""
        import av

        assert self._video.time_base is not None
        try:
            self._container.seek(int(stamp_s / self._video.time_base), stream=self._video, backward=True)
        except av.FFmpegError:
            return False
        return True

    def _stated_duration_s(self) -> Fraction | None:
        import av

        if self._container.format.name == "avi" and self._video.frames and self._video.average_rate:
            return self._video.frames / self._video.average_rate  # FFmpeg fits the other to what is left of the file
        if self._video.duration is not None and self._video.time_base is not None:
            return self._video.duration * self._video.time_base
        others = len(self._container.streams) > len(self._container.streams.video)
        if self._container.duration is None or others:  # the longest stream's, perhaps the sound's
            return None
        return Fraction(self._container.duration, av.time_base)


def _describe_jump(jump: Jump) -> str:
    after, to = float(jump.after_s), float(jump.to_s)
    if jump.by_s > 0:
        return f"no frame from {after:.2f} s to {to:.2f} s; a new segment begins there"
    return f"times jump back by {-float(jump.by_s):.2f} s after {after:.2f} s; a new segment begins, and time goes on"
