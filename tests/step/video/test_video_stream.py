"""Odd recordings through the one reader: which stream, what time, reading on and searching, damage."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers import REAL_VIDEOS, numbered_picture, shared_path, shown_index
from video_helpers import restamp_ts

from step import StepError
from step.data.extract import extract
from step.data.frame_store import clip_files, read_index
from step.data.video_clip import read_video_clip
from step.video_stream import VideoStream


def read(path, **options):
    said = []
    with VideoStream(str(path), say=said.append) as stream:
        frames = [(frame.time_s, shown_index(frame.rgb()), frame.starts_segment) for frame in stream.decode(**options)]
    return frames, said, stream.problem


def assert_searching_agrees(path, *starts):
    frames, _, _ = read(path)
    for start_s in starts:
        found, _, _ = read(path, start_s=Fraction(start_s))
        assert [one[:2] for one in found] == [one[:2] for one in frames if one[0] >= start_s]


def encode(path, codec, *, frames=40, rate=10, times=None, size=(96, 64), **options):
    """Numbered pictures in any container and codec."""
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 4_000_000
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(index, *size), format="rgb24")
            frame.pts, frame.time_base = index if times is None else times[index], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos_by_searching(name):
    path = shared_path(f"real/videos/{name}")
    with VideoStream(str(path)) as stream:
        frames = [(frame.time_s, frame.rgb().tobytes()) for frame in stream.decode()]
    for start_s in (1, 3, 4):
        with VideoStream(str(path)) as stream:
            found = [(frame.time_s, frame.rgb().tobytes()) for frame in stream.decode(start_s=Fraction(start_s))]
        assert found == [frame for frame in frames if frame[0] >= start_s]


def test_one_frame_stamped_far_ahead(make_video):
    path = make_video("v.ts", frames=100)
    path.write_bytes(restamp_ts(path.read_bytes(), {40: Fraction(100)}))
    frames, said, problem = read(path)
    assert [time_s for time_s, _, _ in frames] == [Fraction(number, 25) for number in range(100)]
    assert not any(starts for _, _, starts in frames)
    assert (len(said), problem) == (1, None)
    assert "1 frame has a stamp not in line with the others; placed in between" in said[0]
    assert_searching_agrees(path, 2, 3)


def test_times_that_jump_back(make_video):
    path = make_video("v.ts", frames=100)
    path.write_bytes(restamp_ts(path.read_bytes(), dict.fromkeys(range(50, 100), Fraction(-1))))
    frames, said, _ = read(path)
    assert [time_s for time_s, _, _ in frames] == [Fraction(number, 25) for number in range(100)]
    assert [number for number, frame in enumerate(frames) if frame[2]] == [50]
    assert "times jump back by 0.96 s after 1.96 s; a new segment begins" in said[0]
    assert_searching_agrees(path, 1, 2, 3)


def test_a_gap_is_time_and_begins_a_segment(make_video, tmp_path):
    """What a clip wants of the gap is the nearest frame, in running, extraction and training alike."""
    times = [Fraction(number, 25) + (4 if number >= 50 else 0) for number in range(100)]
    path = make_video("v.mp4", frames=100, times=times)
    frames, said, _ = read(path)
    assert [time_s for time_s, _, _ in frames] == times
    assert [number for number, frame in enumerate(frames) if frame[2]] == [50]
    assert said == [f"{path}: no frame from 1.96 s to 6.00 s; a new segment begins there"]
    assert_searching_agrees(path, 1, 3, 7)
    done = extract(path, tmp_path / "f")
    assert (done.seconds, done.frames, done.notes) == (4, 100, tuple(said))
    assert read_index(tmp_path / "f", "v").gaps == ((2, 5),)
    part = extract(path, tmp_path / "part", name="v", seconds=frozenset({4, 5, 6, 7}))
    assert (part.seconds, read_index(tmp_path / "part", "v").gaps) == (2, ((4, 5),))
    for second, expected in ((6, [50] * 18 + [*range(50, 75)]), (1, None)):
        clip = [shown_index(picture) for picture in read_video_clip(path, second)]
        files = clip_files(tmp_path / "f", "v", second)
        stored = [int(file.parent.name) * 25 + int(file.stem) for file in files]
        assert clip == [number - (100 if number >= 150 else 0) for number in stored]
        if expected:
            assert clip[:18] == expected[:18]
    with pytest.raises(StepError, match="no frames in second 4"):
        read_video_clip(path, 4)


BURSTS = {
    "pairs": [5 * burst + Fraction(number, 25) for burst in range(20) for number in range(2)],
    "two gaps with one frame between": [Fraction(n, 25) + 20 * (n >= 50) + 20 * (n >= 51) for n in range(100)],
    "time-lapse": [number * Fraction(51, 25) for number in range(40)],
    "a lone first frame": [Fraction(0), *(30 + Fraction(number, 25) for number in range(60))],
    "a lone last frame": [*(Fraction(number, 25) for number in range(60)), Fraction(90)],
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("name", BURSTS)
def test_gaps_with_few_frames_between(name, suffix, make_video):
    path = make_video(f"v.{suffix}", frames=len(BURSTS[name]), times=BURSTS[name])
    frames, _, problem = read(path)
    times = [time_s for time_s, _, _ in frames]
    if "lone" not in name:
        assert all(abs(a - b) < Fraction(1, 500) for a, b in zip(times, BURSTS[name], strict=True))
    assert problem is None
    assert_searching_agrees(path, 1, 5, 21, 23, 31, 45, 61)


def test_a_counter_that_is_reset(make_video):
    """One recording behind another, whose stamps begin anew far below."""
    content = make_video("v.ts", frames=100).read_bytes()
    path = make_video("both.ts", frames=1)
    path.write_bytes(restamp_ts(content, dict.fromkeys(range(100), Fraction(300))) + content)
    frames, said, _ = read(path)
    assert [time_s for time_s, _, _ in frames] == [Fraction(number, 25) for number in range(200)]
    assert "times jump back by 303.96 s after 3.96 s" in said[0]
    assert_searching_agrees(path, 1, 3, 5, 7)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_nothing_is_missing_at_the_end_of_a_whole_file(suffix, make_video):
    assert read(make_video(f"v.{suffix}", frames=100))[1] == []


def test_an_outlier_makes_no_false_end(make_video):
    path = make_video("v.ts", frames=100)
    path.write_bytes(restamp_ts(path.read_bytes(), {98: Fraction(50)}))
    (said,) = read(path)[1]
    assert "1 frame has a stamp not in line" in said


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "libx264"])
def test_empty_chunks_of_an_avi_are_time(codec, tmp_path):
    times = [number + (20 if number >= 20 else 0) for number in range(40)]
    path = encode(tmp_path / "v.avi", codec, times=times)
    frames, said, problem = read(path)
    assert problem is None
    assert len(frames) == 40
    assert frames[-1][0] == Fraction(59, 10)
    assert [number for number, frame in enumerate(frames) if frame[2]] == [22 if codec == "libx264" else 20][:1] or said


def test_raw_streams_have_their_own_rate(tmp_path):
    path = encode(tmp_path / "v.h264", "libx264", frames=100, rate=50)
    frames, said, problem = read(path)
    assert [time_s for time_s, _, _ in frames] == [Fraction(number, 50) for number in range(100)]
    assert (said, problem) == ([], None)
    path = encode(tmp_path / "v.mjpeg", "mjpeg", frames=30)
    frames, said, _ = read(path)
    assert frames[-1][0] == Fraction(29, 25)
    assert said == [f"{path}: states neither times nor a rate; 25 frames a second are assumed"]


def test_a_recording_cut_in_the_middle_of_a_group(tmp_path):
    """What cannot be decoded before the first key frame does not count; nothing is damaged."""
    path = encode(tmp_path / "v.ts", "mpeg2video", frames=160, rate=25)
    packets = path.read_bytes()
    packets = packets[: len(packets) // 188 * 188]
    path.write_bytes(packets[len(packets) // 188 // 7 * 188 :])
    frames, said, problem = read(path)
    assert problem is None
    assert frames[0][0] == 0
    assert frames[0][1] > 10
    assert all("cannot be shown (cut from a longer recording?); time zero is the first" in line for line in said)
    assert_searching_agrees(path, 2, 3)


def test_a_late_beginning_by_searching(make_video):
    times = [5 + Fraction(index, 25) for index in range(100)]
    assert_searching_agrees(make_video("late.mkv", frames=100, times=times), 1, 2, 3)


def test_covers_and_previews_are_no_films(make_video, tmp_path):
    """A cover that nothing marks, a smaller preview, and both defaults."""
    film = make_video("film.mp4", frames=30)
    path = tmp_path / "v.mkv"
    with av.open(str(film)) as source, av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 400, 400, "yuvj420p"
        preview = container.add_stream("libx264", rate=25)
        preview.width, preview.height, preview.pix_fmt = 32, 32, "yuv420p"
        out = container.add_stream_from_template(source.streams.video[0])
        picture = av.VideoFrame(400, 400, "yuvj420p")
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        container.mux(cover.encode(picture))
        small = av.VideoFrame(32, 32, "yuv420p")
        small.pts, small.time_base = 0, Fraction(1, 25)
        container.mux(preview.encode(small))
        container.mux(preview.encode(None))
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = out
                container.mux(packet)
    frames, said, _ = read(path)
    assert len(frames) == 30
    assert "has 3 video streams; stream 2 (h264, 96x64) is taken, not stream 0 (mjpeg, 400x400), stream 1" in said[0]


def test_a_file_that_states_more_than_it_holds(make_video):
    """A header's length is no proof of damage, and is mentioned."""
    path = make_video("v.mkv", frames=100)
    content = path.read_bytes()
    at = content.index(b"\x44\x89\x88")  # the duration, a double of milliseconds
    path.write_bytes(content[: at + 3] + np.array(9000.0, ">f8").tobytes() + content[at + 11 :])
    frames, said, problem = read(path)
    assert (len(frames), problem) == (100, None)
    assert said == [f"{path}: ends at 4.00 s; its header states 9.00 s"]


def test_frames_are_let_go(make_video, tmp_path):
    """Nothing keeps a decoder in a cycle: its threads would be missing in a process that is forked meanwhile."""
    import gc
    import threading
    from pathlib import Path

    path = make_video("v.mp4", frames=60)
    read_video_clip(path, 1)
    gc.collect()
    gc.disable()
    try:
        before = len(list(Path("/proc/self/task").iterdir()))
        for _ in range(3):
            read_video_clip(path, 1)
        assert len(list(Path("/proc/self/task").iterdir())) <= before
    finally:
        gc.enable()
    assert threading.active_count() >= 1
