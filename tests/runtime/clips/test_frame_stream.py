"""A caller's own frames give what a file of them gives."""

import dataclasses
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from step_runtime import Detector, FrameStream, KeyFrame
from step_runtime.backends.base import Finished
from step_runtime.sources.frame_folder import image_frame
from step_runtime.sources.video import VideoSource

from step import Detections, StepConfig, StepError

CONFIG = StepConfig(image_size_px=32)
FRAME = np.zeros((48, 64, 3), np.uint8)


class SeeingBackend:
    """Answers a clip with what depends on all of its pixels, and remembers it."""

    name, device, loop, config = "seeing", "none", "fused", CONFIG
    min_batch, max_batch = 1, None

    def __init__(self, depth: int = 1) -> None:
        self.depth = depth
        self.clips: list[np.ndarray] = []

    def submit(self, frames):
        self.clips.append(frames)
        weights = np.arange(frames.size).reshape(frames.shape) % 997
        box = np.array([[[0.1, 0.1, 0.5, 0.5 + (frames * weights).sum() % 9973 / 20000]]], np.float32)
        detections = Detections(
            boxes=box,
            scores=np.array([[0.9]], np.float32),
            labels=np.array([[14]]),
            tube_indices=np.array([[0]]),
            counts=np.array([1]),
            tubes_px=np.repeat(box[:, :, None] * 32, 9, axis=2),
        )
        return Finished(detections) if self.depth == 1 else SimpleNamespace(result=lambda: detections)

    def close(self):
        pass


def _file(path, every_s, backend) -> list[KeyFrame]:
    return list(Detector(backend).run(path, every_s=every_s))


def _pushed(stream: FrameStream, frames, *, time_of=float) -> list[KeyFrame]:
    """All frames through one buffer, as a camera's reader has it."""
    found: list[KeyFrame] = []
    buffer: np.ndarray | None = None
    for frame in frames:
        pixels = frame.rgb()
        buffer = np.empty_like(pixels) if buffer is None else buffer
        buffer[...] = pixels
        found += stream.push(buffer, time_of(frame.time_s))
        buffer[...] = 77
    return found + stream.finish()


def _assert_same(found: list[KeyFrame], expected: list[KeyFrame]) -> None:
    assert expected
    assert [_exact(key_frame) for key_frame in found] == [_exact(key_frame) for key_frame in expected]


def _exact(key_frame: KeyFrame) -> tuple[object, ...]:
    arrays = [(array.dtype, array.tobytes()) for array in key_frame.detections]
    place = (key_frame.frame, key_frame.width_px, key_frame.height_px)
    return (key_frame.time_s, key_frame.scheduled_s, *place, arrays, key_frame.config)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(24), Fraction(30000, 1001)])
@pytest.mark.parametrize("every_s", [Fraction(1), 1 / 3, None])
def test_the_same_as_a_file(rate, every_s, make_video):
    path = make_video(frames=70 if every_s else 12, rate=rate, options={"video_track_timescale": str(rate.numerator)})
    of_file, of_stream = SeeingBackend(), SeeingBackend()
    expected = _file(path, every_s, of_file)
    stream = Detector(of_stream).stream(fps=float(rate), size=(96, 64), every_s=every_s)
    found = _pushed(stream, VideoSource(str(path)).frames())
    _assert_same(found, expected)
    assert np.array_equal(np.stack(of_stream.clips), np.stack(of_file.clips))
    assert {key_frame.video for key_frame in found} == {"stream"}


def test_the_same_as_a_file_with_gaps(make_video):
    """Variable rates, and a gap that no frame may fill."""
    times = [Fraction(i, 25) for i in range(30)] + [Fraction(5) + Fraction(i * i, 400) for i in range(40)]
    path = make_video(frames=len(times), times=times)
    source = VideoSource(str(path))
    expected = _file(path, Fraction(1, 2), SeeingBackend())
    stream = Detector(SeeingBackend()).stream(fps=1 / source.interval_s, every_s=0.5, slack_s=source.slack_s)
    _assert_same(_pushed(stream, source.frames()), expected)
    assert not any(Fraction(3, 2) < key_frame.time_s < 5 for key_frame in expected)  # the gap is one


def test_the_same_with_a_model(tiny_bundle, make_video):
    path = make_video(frames=40)
    with Detector.open(tiny_bundle, "onnxruntime", device="cpu", threads=1) as detector:
        expected = list(detector.run(path))
        with detector.stream(fps=25, name="video") as stream:
            found = _pushed(stream, VideoSource(str(path)).frames())
        _assert_same(found, expected)
        assert [key_frame.to_json() for key_frame in found] == [key_frame.to_json() for key_frame in expected]


def test_times_are_the_callers():
    """A clock that began long ago: key frames lie from the first frame on, at its times."""
    frames = [image_frame(FRAME, Fraction(i, 25), i) for i in range(60)]
    expected = _pushed(Detector(SeeingBackend()).stream(fps=25), frames)
    began_s = Fraction(1_700_000_000)
    found = _pushed(Detector(SeeingBackend()).stream(fps=25), frames, time_of=lambda time_s: float(began_s + time_s))
    assert [key_frame.time_s - began_s for key_frame in found] == [0, 1, 2]
    assert [key_frame.scheduled_s - began_s for key_frame in found] == [0, 1, 2]
    moved = [
        dataclasses.replace(frame, time_s=frame.time_s - began_s, scheduled_s=frame.scheduled_s - began_s)
        for frame in found
    ]
    _assert_same(moved, expected)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_key_frame_comes_with_the_last_frame_of_its_clip(depth):
    """Nothing is held back, not by a model that could take another clip either."""
    stream = Detector(SeeingBackend(depth)).stream(fps=25)
    came = [index for index in range(100) if stream.push(FRAME, index / 25)]
    assert came == [38, 63, 88]  # the first frame after 1.5 s, 2.5 s, 3.5 s
    assert [key_frame.time_s for key_frame in stream.finish()] == [3]


def test_frames_that_are_no_rgb_arrays_in_order():
    """Views of any layout are taken."""
    pixels = np.random.RandomState(0).randint(0, 256, (48, 64, 3), np.uint8)
    backends = SeeingBackend(), SeeingBackend()
    for backend, frame in zip(backends, (pixels[:, ::-1, ::-1], pixels[:, ::-1, ::-1].copy()), strict=True):
        stream = Detector(backend).stream(fps=25)
        stream.push(frame, 0)
        stream.finish()
    assert np.array_equal(backends[0].clips[0], backends[1].clips[0])


@pytest.mark.parametrize(
    ("frame", "time_s", "said"),
    [
        ([[1]], 1, "`frame` is of the type list; give uint8 .H, W, 3. RGB, a NumPy array$"),
        (FRAME.astype(np.float32), 1, "`frame` is of float32; give uint8 .* with values from 0 to 255$"),
        (FRAME[..., 0], 1, r"`frame` is of shape \[48, 64\]; give uint8"),
        (FRAME[None], 1, r"`frame` is of shape \[1, 48, 64, 3\]; give uint8"),
        (FRAME[:0], 1, r"`frame` is of shape \[0, 64, 3\]; give uint8"),
        (FRAME.transpose(2, 0, 1), 1, r"`frame` is of shape \[3, 48, 64\]; .*, the colour channel last$"),
        (FRAME[:-1], 1, "`frame` is 64 x 47 px at frame 1; this stream's frames are 64 x 48: resize it, or open"),
        (FRAME, 0.5, "`time_s` is 0.5 at frame 1, after 0.5; it has to grow"),
        (FRAME, 0, "`time_s` is 0 at frame 1, after 0.5; it has to grow"),
        (FRAME, float("nan"), "`time_s` is nan; it must be a number of seconds"),
        (FRAME, "1", "`time_s` is '1'; it must be a number of seconds"),
        (FRAME, None, "`time_s` is None; it must be"),
    ],
)
def test_frames_that_are_refused(frame, time_s, said):
    """In one line, and the stream goes on as if they had not come."""
    backend = SeeingBackend()
    stream = Detector(backend).stream(fps=25)
    stream.push(FRAME, 0.5)
    with pytest.raises(StepError, match=said) as error:
        stream.push(frame, time_s)
    assert "\n" not in str(error.value)
    stream.push(FRAME, 0.54)
    assert [(key_frame.time_s, key_frame.frame) for key_frame in stream.finish()] == [(Fraction(1, 2), 0)]


def test_the_size_that_was_said():
    with pytest.raises(StepError, match="`frame` is 64 x 48 px at frame 0; this stream's frames are 48 x 64"):
        Detector(SeeingBackend()).stream(fps=25, size=(48, 64)).push(FRAME, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fps": 0}, "`fps` is 0; it must be above 0"),
        ({"fps": "25"}, "`fps` is '25'; it must be above 0"),
        ({"size": 640}, r"`size` is 640; give width and height in pixels, such as \(640, 480\)"),
        ({"size": (640, 480, 3)}, "`size` is .*; give width and height"),
        ({"size": (640, 0)}, "`size` is 0; it must be a whole number of at least 1"),
        ({"size": (640.0, 480)}, "`size` is 640.0; it must be a whole number"),
        ({"every_s": 0}, "`every_s` is 0; it must be above 0 seconds"),
        ({"every_s": "frame"}, "`every_s` is 'frame'; it must be"),
        ({"slack_s": -1}, "`slack_s` is -1; it must be at least 0"),
        ({"slack_s": "x"}, "`slack_s` is 'x'; it must be a number of seconds"),
        ({"name": ""}, "`name` is ''; give a word"),
    ],
)
def test_arguments_that_are_refused(arguments, said):
    with pytest.raises(StepError, match=said):
        Detector(SeeingBackend()).stream(**({"fps": 25} | arguments))


def test_a_stream_that_has_ended_says_so():
    detector = Detector(SeeingBackend())
    with detector.stream(fps=25) as stream:
        stream.push(FRAME, 0)
    with pytest.raises(StepError, match="^the stream is closed; open another one$"):
        stream.push(FRAME, 1)
    stream = detector.stream(fps=25)
    assert stream.finish() == []
    with pytest.raises(StepError, match="^the stream has ended with `finish`; open another one$"):
        stream.finish()
    stream = detector.stream(fps=25)
    detector.close()
    for call in (lambda: stream.push(FRAME, 0), stream.finish, stream.__enter__):
        with pytest.raises(RuntimeError, match="^the model is closed; open it again$"):
            call()
    stream.close()
