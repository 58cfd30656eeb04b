import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers import REAL_VIDEOS, numbered_picture, shared_path, shown_index
from step_runtime.sources.frame_folder import FrameFolderSource
from step_runtime.sources.open import find_sources, open_camera, open_source, open_stream, source_names
from step_runtime.sources.video import VideoSource

from step import StepError


def test_exact_timestamps(make_video):
    rate = Fraction(30000, 1001)
    source = VideoSource(str(make_video(rate=rate, frames=40)))
    frames = list(source.frames())
    assert source.interval_s == 1 / rate
    assert source.slack_s == 0
    assert [frame.time_s for frame in frames] == [index / rate for index in range(40)]
    assert [shown_index(frame.rgb()) for frame in frames] == list(range(40))
    assert source.problem is None


def test_variable_frame_rate(make_video):
    times = [Fraction(t, 100) for t in (0, 3, 4, 50, 51, 52, 200)]
    source = VideoSource(str(make_video(frames=7, times=times)))
    assert [frame.time_s for frame in source.frames()] == times


def test_time_starts_at_the_first_frame(make_video):
    times = [5 + Fraction(index, 25) for index in range(10)]
    source = VideoSource(str(make_video("late.mkv", frames=10, times=times)))
    found = [frame.time_s for frame in source.frames()]
    assert found[0] == 0
    assert float(found[-1]) == pytest.approx(9 / 25, abs=1e-3)


def test_milliseconds_in_matroska_have_slack(make_video):
    source = VideoSource(str(make_video("video.mkv", rate=Fraction(24))))
    assert 0 < source.slack_s <= Fraction(1, 1000)


def _rotate(path, quarter_turns_clockwise):
    """Writes the display matrix of a phone video into the mp4's track header."""
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd")
    identity = (
        (1 << 16).to_bytes(4, "big")
        + bytes(12)
        + (1 << 16).to_bytes(4, "big")
        + bytes(12)
        + (1 << 30).to_bytes(4, "big")
    )
    start = content.index(identity, header)
    one, minus = (1 << 16).to_bytes(4, "big"), (-(1 << 16)).to_bytes(4, "big", signed=True)
    zero = bytes(4)
    corner = {1: (zero, one, minus, zero), 2: (minus, zero, zero, minus), 3: (zero, minus, one, zero)}
    a, b, c, d = corner[quarter_turns_clockwise]
    content[start : start + 32] = a + b + zero + c + d + zero + zero + zero
    path.write_bytes(content)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_metadata(turns, tmp_path):
    """A picture that is bright on top has to be bright where the player would show it."""
    path = tmp_path / "phone.mp4"
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32] = 250
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    _rotate(path, turns)
    frame = next(VideoSource(str(path)).frames())
    shown = frame.rgb()
    assert (frame.width_px, frame.height_px) == ((64, 96) if turns % 2 else (96, 64))
    assert shown.shape == (frame.height_px, frame.width_px, 3)
    expected = np.rot90(pixels, -turns)  # clockwise
    assert np.abs(shown.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(
    ("name", "frames", "rate"),
    [
        ("arm_wrestling_340x256_28fps.mp4", 280, Fraction(28)),
        ("eyebrows_320x240_25fps.avi", 164, Fraction(25)),
        ("chaplin_640x360_25fps.mp4", 241, Fraction(25)),
        ("juggle_1280x720_24fps.mp4", 247, Fraction(24)),
        ("carphone_176x144_2997fps.mp4", 120, Fraction(30000, 1001)),
    ],
)
def test_real_videos(name, frames, rate):
    assert name in REAL_VIDEOS
    source = VideoSource(str(shared_path(f"real/videos/{name}")))
    times = [frame.time_s for frame in source.frames()]
    assert times == [index / rate for index in range(frames)]
    assert source.problem is None
    assert not source.is_live


@pytest.fixture
def streamable(make_video):
    """A file whose index comes first, so that its beginning can be read without its end."""
    return make_video("whole.mp4", frames=100, options={"movflags": "faststart"})


def test_truncated_midway_keeps_what_came_before(streamable):
    content = streamable.read_bytes()
    streamable.write_bytes(content[: int(len(content) * 0.6)])
    source = VideoSource(str(streamable))
    frames = list(source.frames())
    assert 10 < len(frames) < 90
    assert "broke at" in source.problem
    assert "of 4.00 s" in source.problem
    assert [shown_index(frame.rgb()) for frame in frames[:10]] == list(range(10))


def test_truncated_before_its_index_cannot_be_opened(make_video):
    path = make_video()
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(StepError, match="not a video, or damaged"):
        VideoSource(str(path))


def test_damage_in_the_middle_is_skipped(streamable):
    content = bytearray(streamable.read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 40] = bytes(40)
    streamable.write_bytes(content)
    assert len(list(VideoSource(str(streamable)).frames())) > 90


@pytest.mark.parametrize("content", [b"", b"hello", bytes(5000)])
def test_files_that_are_no_videos(content, tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(StepError, match="empty|not a video, or damaged"):
        VideoSource(str(path))


def test_audio_only(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(StepError, match=r"no video stream \(found: audio\)"):
        VideoSource(str(path))


def test_missing_file(tmp_path):
    with pytest.raises(StepError, match="no such file"):
        find_sources(str(tmp_path / "none.mp4"), frames_fps=Fraction(30))


def test_unreachable_url():
    with pytest.raises(StepError, match="http://127.0.0.1:9/video.mp4: cannot open: .*reachable"):
        open_stream("http://127.0.0.1:9/video.mp4", name="video")


def test_missing_camera():
    with pytest.raises(StepError, match="camera 97: cannot open"):
        open_camera(97, name="camera97")


@pytest.fixture
def frame_folder(tmp_path):
    folder = tmp_path / "frames" / "clip"
    folder.mkdir(parents=True)
    for index in range(12):
        cv2.imwrite(str(folder / f"frame{index + 1}.jpg"), numbered_picture(index, 60, 40))
    return folder


def test_frames_in_natural_order(frame_folder):
    source = FrameFolderSource(frame_folder, fps=Fraction(10))
    frames = list(source.frames())
    assert [shown_index(frame.rgb()) for frame in frames] == list(range(12))
    assert frames[-1].time_s == Fraction(11, 10)
    assert (source.name, source.duration_s) == ("clip", Fraction(12, 10))


def test_frames_are_rgb(tmp_path):
    red_bgr = np.zeros((8, 8, 3), np.uint8)
    red_bgr[..., 2] = 255
    cv2.imwrite(str(tmp_path / "0.png"), red_bgr)
    (frame,) = FrameFolderSource(tmp_path, fps=Fraction(1)).frames()
    assert frame.rgb()[0, 0].tolist() == [255, 0, 0]


def test_a_broken_frame_ends_the_folder_there(frame_folder):
    (frame_folder / "frame5.jpg").write_bytes(b"no jpeg")
    source = FrameFolderSource(frame_folder, fps=Fraction(10))
    assert len(list(source.frames())) == 4
    assert "frame5.jpg: not an image, or damaged (at 0.40 s)" in source.problem


def test_folders_of_videos_and_of_frame_folders(make_video, frame_folder, tmp_path):
    assert find_sources(str(frame_folder), frames_fps=Fraction(30)) == [frame_folder]
    assert find_sources(str(frame_folder.parent), frames_fps=Fraction(30)) == [frame_folder]
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("b.mp4", "a.mp4"):
        shutil.copy(make_video(name), videos / name)
    (videos / "notes.txt").write_text("")
    assert find_sources(str(videos), frames_fps=Fraction(30)) == [str(videos / "a.mp4"), str(videos / "b.mp4")]
    assert open_source(str(videos / "a.mp4"), frames_fps=Fraction(30)).name == "a"


def test_a_folder_of_neither(tmp_path):
    with pytest.raises(StepError, match="neither videos"):
        find_sources(str(tmp_path), frames_fps=Fraction(30))


def test_truncated_avi(tmp_path):
    """FFmpeg states the shortened duration of a cut AVI; the number of frames tells."""
    content = shared_path("real/videos/eyebrows_320x240_25fps.avi").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(content[: len(content) // 2])
    source = VideoSource(str(path))
    assert len(list(source.frames())) > 50
    assert "broke at" in source.problem
    assert "of 6.56 s" in source.problem


def test_frames_lost_in_the_middle_are_told(streamable):
    content = bytearray(streamable.read_bytes())
    start = len(content) // 2
    content[start : start + len(content) // 4] = bytes(len(content) // 4)
    streamable.write_bytes(content)
    source = VideoSource(str(streamable))
    list(source.frames())
    assert "frames could not be decoded" in source.problem


def test_names_that_would_be_the_same():
    names = source_names(["v/x.mp4", "v/x.mkv", "v/y.mp4", Path("v/clip.1"), Path("v/clip.2")])
    assert names == ["x.mp4", "x.mkv", "y", "clip.1", "clip.2"]
    assert source_names(["what?.mp4"]) == ["what?"]
    assert source_names(["http://host/a.mp4?token=1"]) == ["a"]


def test_a_path_is_never_a_camera_or_a_url(make_video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = make_video("7.mp4").rename("7")
    assert find_sources(Path("7"), frames_fps=Fraction(30)) == ["7"]
    assert open_source(Path("7"), frames_fps=Fraction(30)).name == "7"
    video.unlink()
    with pytest.raises(StepError, match="7: no such file or folder"):
        find_sources(Path("7"), frames_fps=Fraction(30))


def test_a_path_to_a_video_is_named_as_its_string_is(make_video):
    video = make_video("a.b.mp4")
    assert open_source(video, frames_fps=Fraction(30)).name == open_source(str(video), frames_fps=Fraction(30)).name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtsp://10.0.0.6/cam1", "10.0.0.6-cam1"),
        ("rtsp://10.0.0.6/Streaming/Channels/1.0", "10.0.0.6-1.0"),
        ("rtsp://user:word@10.0.0.6/", "10.0.0.6"),
        ("udp://127.0.0.1:5599", "127.0.0.1-5599"),
        ("http://host/a/clip.mp4?token=x.y", "clip"),
        ("http://host/a%20b.mkv", "a b"),
    ],
)
def test_a_url_keeps_its_name(url, name):
    assert source_names([url]) == [name]


def test_names_are_different():
    urls = ["rtsp://a/1/stream", "rtsp://a/2/stream", "rtsp://a/stream-2"]
    assert source_names(urls) == ["a-stream", "a-stream-2", "a-stream-2-2"]
