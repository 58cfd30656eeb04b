"""`overlay.mp4`: the source with boxes that follow their tubes between key frames."""

import contextlib
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from step.clips import tube_offsets_s
from step.config import CLIP_FPS, StepConfig
from step.errors import StepError
from step.memory import is_memory_shortage
from step.video.files import ffmpeg_name
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.outputs.box_labels import LabelledBox, draw_boxes, draw_caption
from step_runtime.outputs.colours import encoded_colours, tag_colours
from step_runtime.people.person import Person
from step_runtime.sources.base import SourceFrame
from step_runtime.tracing.tracer import SILENT, Tracer

if TYPE_CHECKING:
    import av
    import av.container
    import av.video

_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf")
# An index for each second instead of one at the end (https://ffmpeg.org/ffmpeg-formats.html#Fragmentation).
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_READABLE_PX = 360  # smaller pictures are enlarged by a whole factor, so that labels can be read
_LARGEST_PX = 1920  # as long as that does not make them larger than this
_TIME_BASE = Fraction(1, 90000)  # MPEG's clock; every common frame rate is a whole number of ticks


class OverlayWriter:
    """Draws and encodes; frames and key frames come in order of time, key frames ahead of the frames they colour.

    Args:
        path: the mp4 to write.
        config: of the model.
        interval_s: the source's nominal frame interval.
        is_live: whether the file can be played while it grows, and whatever ends it.
        tracer: records what it does, and when.
    """

    def __init__(
        self,
        path: Path,
        *,
        config: StepConfig,
        interval_s: Fraction,
        is_live: bool = False,
        tracer: Tracer = SILENT,
    ) -> None:
        self._tracer = tracer
        self._path = path
        self._config = config
        self._rate = 1 / interval_s
        self._is_live = is_live
        self._reach_s = Fraction(config.clip_frames // 2, CLIP_FPS)  # how far from its key frame a tube is known
        self._key_frames: deque[tuple[KeyFrame, list[Person]]] = deque()
        self._container: av.container.OutputContainer | None = None
        self._stream: av.video.VideoStream | None = None
        self._last_pts = -1

    def add_key_frame(self, key_frame: KeyFrame, people: list[Person]) -> None:
        """What is known at a moment."""
        self._key_frames.append((key_frame, people))

    def write(self, frame: SourceFrame) -> None:
        """Draws what is known at this frame's time and encodes it.

        Raises:
            StepError: the file cannot be written.
        """
        self.draw(frame, self._boxes_at(frame.time_s))

    def draw(self, frame: SourceFrame, boxes: list[LabelledBox], *, caption: str = "") -> None:
        """Draws these boxes, and a caption at the lower edge, and encodes the frame.

        Raises:
            StepError: the file cannot be written.
        """
        with self._tracer.span("convert"):
            pixels = frame.rgb()
        with self._tracer.span("draw"):
            pixels = _enlarged(pixels)
            draw_boxes(pixels, boxes, name_of=self._config.class_name)
            if caption:
                draw_caption(pixels, caption)
        with self._tracer.span("encode"), self._reported():
            self._encode(pixels, frame.time_s)

    def close(self) -> None:
        """Ends the file.

        Raises:
            StepError: the file cannot be written.
        """
        if self._container is not None and self._stream is not None:
            with self._tracer.span("encode"), self._reported():  # what the encoder held back to look ahead
                self._container.mux(self._stream.encode(None))
                self._container.close()
        self._container = None

    def abort(self) -> None:
        """Lets go of the file, whatever state it is in."""
        if self._container is not None:
            import av

            with contextlib.suppress(av.FFmpegError):  # the failure that led here is the one to report
                self._container.close()
        self._container = None

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Says in one line what FFmpeg cannot write."""
        import av

        try:
            yield
        except av.FFmpegError as error:
            what = "memory" if is_memory_shortage(error) else "space, choose another --out"
            raise StepError(
                f"cannot write {self._path}: {error.strerror}; free {what}, or give --no-overlay"
            ) from error

    def _boxes_at(self, time_s: Fraction) -> list[LabelledBox]:
        """The people of the nearest key frame, moved along their tubes to this moment."""
        while len(self._key_frames) > 1 and self._distance_s(1, time_s) <= self._distance_s(0, time_s):
            self._key_frames.popleft()
        if not self._key_frames or self._distance_s(0, time_s) > self._reach_s:
            return []
        key_frame, people = self._key_frames[0]
        offset_s = float(time_s - key_frame.time_s)
        return [
            LabelledBox(box=box_along_tube(person.tube, offset_s, self._config), actions=person.actions, color_index=i)
            for i, person in enumerate(people)
        ]

    def _distance_s(self, index: int, time_s: Fraction) -> Fraction:
        return abs(self._key_frames[index][0].time_s - time_s)

    def _encode(self, pixels: NDArray[np.uint8], time_s: Fraction) -> None:
        import av

        height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2  # H.264 wants even sides
        if self._stream is None:
            self._open(width, height)
        assert self._container is not None
        assert self._stream is not None
        if (self._stream.width, self._stream.height) != (width, height):
            # A stream that changes its picture size midway; the overlay keeps the first one.
            width, height = self._stream.width, self._stream.height
            pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
        picture = encoded_colours(picture)
        self._last_pts = max(round(time_s / _TIME_BASE), self._last_pts + 1)
        picture.pts, picture.time_base = self._last_pts, _TIME_BASE
        self._container.mux(self._stream.encode(picture))

    def _open(self, width: int, height: int) -> None:
        import av

        self._container = av.open(
            ffmpeg_name(self._path), "w", format="mp4", options=_FRAGMENTS if self._is_live else {}
        )
        stream = self._container.add_stream(_encoder(), rate=self._rate.limit_denominator(1001))
        assert isinstance(stream, av.video.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        tag_colours(stream.codec_context)
        stream.options = {"crf": "23", "preset": "veryfast"}
        if self._is_live:  # a fragment is written when the next one begins, with a key picture
            stream.codec_context.gop_size = max(round(self._rate), 1)
        self._stream = stream


def box_along_tube(tube: NDArray[np.float32], offset_s: float, config: StepConfig) -> NDArray[np.float32]:
    """The tube's box at a moment, linear between its frames, constant beyond its ends.

    Args:
        tube: [T', 4].
        offset_s: seconds from the key frame.
        config: of the model.
    """
    times_s = tube_offsets_s(len(tube), config)
    return np.array([np.interp(offset_s, times_s, tube[:, side]) for side in range(4)], np.float32)


def frames_until(frames: Iterator[SourceFrame], time_s: Fraction) -> Iterator[SourceFrame]:
    """The frames up to and including the first that starts at `time_s` or later."""
    for frame in frames:
        yield frame
        if frame.time_s >= time_s:
            return


def _enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy to draw on."""
    height, width = pixels.shape[:2]
    factor = min(math.ceil(_READABLE_PX / min(height, width)), max(1, _LARGEST_PX // max(height, width)))
    size = (max(factor * width, 2), max(factor * height, 2))  # H.264 has no odd sides, so none of one pixel
    if size == (width, height):
        return pixels.copy()
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _encoder() -> str:
    import av

    for name in _ENCODERS:
        if name in av.codecs_available:
            return name
    raise StepError(f"no H.264 encoder in this PyAV {av.__version__}; run with --no-overlay")
