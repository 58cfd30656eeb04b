"""Videos to frames: which second, how many, what pixels; resuming and damage."""

import errno
import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import REAL_VIDEOS, shared_path, shown_index

from step import StepError
from step.data import extract as extract_module
from step.data.extract import extract
from step.data.frame_store import FrameIndex, clip_files, read_clip, read_frame, read_index, resampled, second_folder
from step.data.stored_image import HEIGHT_PX
from step.data.video_clip import read_video_clip
from step.video_stream import VideoStream


@pytest.fixture
def video(make_video):
    return make_video("v.mp4", frames=80, rate=Fraction(24), size=(96, 64))


def _files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))


def test_seconds_and_counts(video, tmp_path):
    done = extract(video, tmp_path / "frames")
    assert (done.video, done.seconds, done.written, done.frames) == ("v", 4, 4, 80)
    counts = [len(list(second_folder(tmp_path / "frames", "v", second).iterdir())) for second in range(4)]
    assert counts == [24, 24, 24, 8]
    assert _files(tmp_path / "frames")[0] == "v/00000/00000.jpg"
    assert read_index(tmp_path / "frames", "v").counts == {0: 24, 1: 24, 2: 24, 3: 8}
    assert not [path for path in (tmp_path / "frames" / "v").iterdir() if path.name.startswith(".")]


def test_images(video, tmp_path):
    """Scaled to 360 rows; the same image within what JPEG loses."""
    extract(video, tmp_path / "frames")
    with VideoStream(str(video)) as stream:
        frames = [frame.rgb() for frame in stream.decode()]
    for number in (0, 30, 79):
        image = read_frame(second_folder(tmp_path / "frames", "v", number // 24) / f"{number % 24:05d}.jpg")
        assert image.shape == (HEIGHT_PX, 540, 3)
        expected = cv2.resize(frames[number], (540, 360), interpolation=cv2.INTER_CUBIC)
        assert np.abs(image.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos(name, tmp_path):
    """Whatever the container and the colours: no image is darker, paler or of another hue."""
    path = shared_path(f"real/videos/{name}")
    extract(path, tmp_path, seconds=frozenset({1}), name="v")
    with VideoStream(str(path)) as stream:
        frames = [frame.rgb() for frame in stream.decode() if int(frame.time_s) == 1]
    files = sorted(second_folder(tmp_path, "v", 1).iterdir())
    assert len(files) == len(frames) == read_index(tmp_path, "v").counts[1]
    image = read_frame(files[5]).astype(float)
    filter_ = cv2.INTER_AREA if len(frames[5]) > HEIGHT_PX else cv2.INTER_CUBIC
    expected = cv2.resize(frames[5], image.shape[1::-1], interpolation=filter_).astype(float)
    assert np.abs(image.mean((0, 1)) - expected.mean((0, 1))).max() < 2.5  # FFmpeg's own rounding makes up 2
    assert np.abs(image - expected).mean() < 7  # grass, scaled by two filters


def test_only_the_wanted_seconds(video, tmp_path):
    done = extract(video, tmp_path, seconds=frozenset({2}))
    assert (done.seconds, done.written, done.frames) == (1, 1, 24)
    assert {path.split("/")[1] for path in _files(tmp_path)} == {"00002"}
    whole = extract(video, tmp_path)
    assert (whole.seconds, whole.written) == (4, 3)


def test_what_is_there_is_not_decoded_again(video, tmp_path, monkeypatch):
    extract(video, tmp_path)
    monkeypatch.setattr(extract_module, "VideoStream", lambda _: pytest.fail("decoded again"))
    assert extract(video, tmp_path).written == 0
    assert extract(video, tmp_path, seconds=frozenset({1, 3})).written == 0


def test_an_interrupted_extraction_goes_on(video, tmp_path, monkeypatch):
    encode, calls = extract_module.encode_jpeg, []

    def interrupted(frame):
        calls.append(frame)
        if len(calls) > 40:
            raise KeyboardInterrupt
        return encode(frame)

    monkeypatch.setattr(extract_module, "encode_jpeg", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(video, tmp_path)
    assert len(_files(tmp_path)) == 24  # the second that was begun is not there at all
    monkeypatch.setattr(extract_module, "encode_jpeg", encode)
    assert extract(video, tmp_path).written == 3


@pytest.mark.parametrize("damage", ["truncated", "missing", "foreign"])
def test_damaged_seconds_are_made_again(damage, video, tmp_path):
    extract(video, tmp_path)
    file = second_folder(tmp_path, "v", 1) / "00007.jpg"
    good = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(good[:-100])
        with pytest.raises(StepError, match="00007.jpg: not a whole JPEG file; extract it again"):
            read_frame(file)
    elif damage == "missing":
        file.unlink()
    else:
        file.with_name("notes.txt").touch()
    assert extract(video, tmp_path).written == 1
    assert file.read_bytes() == good
    index = read_index(tmp_path, "v")
    assert (index.last_second, index.is_whole) == (3, True)
    assert not file.with_name("notes.txt").exists()


def test_another_video_of_the_same_name(video, make_video, tmp_path):
    extract(video, tmp_path / "frames")
    other = make_video("other.mp4", frames=30, rate=Fraction(24))
    assert extract(other, tmp_path / "frames", name="v").written == 2
    assert read_index(tmp_path / "frames", "v").counts == {0: 24, 1: 6}


def test_bad_videos(video, tmp_path):
    with pytest.raises(StepError, match="none.mp4: no such file"):
        extract(tmp_path / "none.mp4", tmp_path / "f")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(StepError, match="text.mp4: cannot open"):
        extract(tmp_path / "text.mp4", tmp_path / "f")


def test_a_damaged_index(video, tmp_path):
    extract(video, tmp_path)
    (tmp_path / "v" / "index.json").write_text("{")
    with pytest.raises(StepError, match="index.json: is damaged: .* remove it"):
        extract(video, tmp_path)
    (tmp_path / "v" / "index.json").write_text(json.dumps({"counts": []}))
    with pytest.raises(StepError, match="index.json: is damaged"):
        read_index(tmp_path, "v")
    assert read_index(tmp_path, "none") == FrameIndex()


@pytest.mark.parametrize("count", [1, 8, 12, 24, 25, 30])
def test_resampling(count):
    expected = [int(i * count / 12) for i in range(12)]
    assert resampled(count).tolist() == expected


def test_a_clips_frames(make_video, tmp_path):
    """Half of second t - 2, all of t - 1 and t, half of t + 1, twelve to a second."""
    video = make_video("v.mp4", frames=24 * 6, rate=Fraction(24), size=(96, 64))
    extract(video, tmp_path / "frames")
    files = clip_files(tmp_path / "frames", "v", 3)
    numbers = [int(path.parent.name) * 24 + int(path.stem) for path in files]
    assert numbers == list(range(24 + 12, 24 * 4 + 12, 2))
    assert read_clip(tmp_path / "frames", "v", 3).shape == (36, 360, 540, 3)
    with pytest.raises(StepError, match="00006: no frames of second 6 of v; extract them"):
        clip_files(tmp_path / "frames", "v", 6)


def test_clips_reach_beyond_the_video(video, tmp_path):
    """80 frames at 24 a second: 0 to 3, of which the last has 8. The first and the last frame stand in."""
    done = extract(video, tmp_path, seconds=frozenset(range(-2, 6)))
    assert (done.seconds, done.frames) == (4, 80)
    assert read_index(tmp_path, "v").last_second == 3
    assert extract(video, tmp_path, seconds=frozenset(range(-2, 6))).written == 0
    numbers = [int(path.parent.name) * 24 + int(path.stem) for path in clip_files(tmp_path, "v", 0)]
    assert numbers == [0] * 18 + list(range(0, 24, 2)) + list(range(24, 36, 2))
    numbers = [int(path.parent.name) * 24 + int(path.stem) for path in clip_files(tmp_path, "v", 3)]
    assert numbers[-6:] == [79] * 6
    with pytest.raises(StepError, match="00004: no frames of second 4"):
        clip_files(tmp_path, "v", 4)
    (tmp_path / "v" / "00001" / "00000.jpg").parent.rename(tmp_path / "away")
    with pytest.raises(StepError, match="00001: no frames of second 1"):
        clip_files(tmp_path, "v", 2)


def test_seconds_one_after_another(video, tmp_path):
    """The end is known once it was seen, and not before."""
    for seconds, last in (({2}, None), ({1}, None), ({0}, None), ({8, 9}, 3), ({3}, 3), ({2, 5}, 3)):
        if seconds == {8, 9}:
            assert extract(video, tmp_path, seconds=frozenset(seconds)).seconds == 0
        else:
            extract(video, tmp_path, seconds=frozenset(seconds))
        assert read_index(tmp_path, "v").last_second == last, seconds
    assert sorted(read_index(tmp_path, "v").counts) == [0, 1, 2, 3]


def test_seconds_in_a_gap_are_known_to_be_none(make_video, tmp_path):
    times = [Fraction(number, 25) + (20 if number >= 50 else 0) for number in range(100)]
    path = make_video("v.mp4", frames=100, times=times, size=(96, 64))
    for _ in range(2):
        done = extract(path, tmp_path / "frames", seconds=frozenset({8, 9, 10, 11}))
        assert (done.seconds, done.absent) == (0, frozenset({8, 9, 10, 11}))
        assert read_index(tmp_path / "frames", "v").gaps == ((8, 21),)
    done = extract(path, tmp_path / "frames", seconds=frozenset({0, 50}))
    assert (done.seconds, done.absent) == (1, frozenset({50}))


def test_a_full_disk(video, tmp_path, monkeypatch):
    """No half second, no leftovers; what was done before stays and is not done again."""
    real = Path.write_bytes
    room = [30]

    def write_bytes(path, content):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(StepError, match="No space left on device; free space or choose another place"):
            extract(video, tmp_path / "frames")
    assert [path.name for path in sorted((tmp_path / "frames" / "v").iterdir())] == ["00000", "index.json"]
    assert extract(video, tmp_path / "frames").written == 3


@pytest.mark.parametrize("second", [0, 1, 2, 3])
def test_clips_from_the_video_equal_those_from_frames(second, make_video, tmp_path):
    """At the video's ends too, where its first or last frame is repeated."""
    video = make_video("v.mp4", frames=96, rate=Fraction(24), size=(96, 64))
    extract(video, tmp_path / "frames")
    direct, stored = read_video_clip(video, second), read_clip(tmp_path / "frames", "v", second)
    assert direct.shape == stored.shape == (36, 360, 540, 3)
    assert np.abs(direct.astype(int) - stored).mean((1, 2, 3)).max() < 3
    expected = np.clip(range(24 * second - 36, 24 * second + 36, 2), 0, 95)  # of 96 frames, every other
    assert [shown_index(image) for image in direct] == expected.tolist()


@pytest.mark.parametrize("second", [4, 9])
def test_no_clip_of_a_second_beyond_the_video(second, video, tmp_path):
    with pytest.raises(StepError, match=rf"has no frames in second \d, which the clip of {second} needs"):
        read_video_clip(video, second)
