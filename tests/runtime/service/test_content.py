"""What clients send, opened: the same clips as `Detector.run` cuts from a file."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, numbered_picture, shown_index
from step_runtime.service.content import CONTAINERS, cut_clips, open_content
from step_runtime.service.request import FrameArray
from step_runtime.sources.open import open_source
from step_runtime.sources.video import VideoSource

from step.errors import StepError


def clips_of(source, every_s=Fraction(1)):
    return list(cut_clips(source, config=TINY, every_s=every_s))


def test_bytes_are_cut_as_their_file(make_video):
    video = make_video(frames=60)
    with open_content(video.read_bytes()) as source:
        found = clips_of(source)
    expected = clips_of(open_source(str(video), frames_fps=Fraction(25)))
    assert [clip.time_s for clip in found] == [0, 1, 2]
    for one, other in zip(found, expected, strict=True):
        assert (one.time_s, one.frame) == (other.time_s, other.frame)
        np.testing.assert_array_equal(one.frames, other.frames)


def test_frames_are_cut_at_their_rate():
    frames = np.stack([numbered_picture(index, 96, 64) for index in range(48)])
    with open_content(FrameArray(frames, Fraction(24))) as source:
        first, second = clips_of(source)
    assert (second.time_s, second.frame, second.width_px, second.height_px) == (1, 24, 96, 64)
    assert shown_index(second.frames[17]) == 24  # the key frame
    assert [shown_index(picture) for picture in first.frames[17:20]] == [0, 2, 4]  # 12 a second


def test_nothing_is_left_on_the_disk(make_video, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = make_video().read_bytes()
    before = sorted(tmp_path.iterdir())
    with open_content(content) as source:
        next(source.frames())
        assert len(sorted(tmp_path.iterdir())) == len(before) + 1
    with pytest.raises(StepError), open_content(b"no video"):
        pass
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk(make_video, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    content = make_video(frames=2).read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StepError, match="No space left on device"), open_content(content):
        pass


def test_a_truncated_video_says_where_it_broke(make_video):
    content = make_video(frames=100, options={"movflags": "+faststart"}).read_bytes()
    with open_content(content[: len(content) * 2 // 3]) as source:
        assert len(clips_of(source)) >= 2
        assert source.problem.startswith("video: broke at")


@pytest.mark.parametrize("content", [b"\0", b"no video at all" * 100])
def test_no_video(content):
    with pytest.raises(StepError, match="^video: cannot open: "), open_content(content) as source:
        clips_of(source)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{0}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{0}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_file_of_the_server(kind, make_video):
    """Else whoever may send a video might see those that lie on the server."""
    video = make_video("secret.ts" if kind == "hls" else "secret.mp4")
    content = PLAYLISTS[kind].format(video).encode()
    with pytest.raises(StepError, match="^video: cannot open: "), open_content(content) as source:
        clips_of(source)


def test_a_playlist_is_refused_where_ffmpeg_would_open_it(make_video, tmp_path):
    """What FFmpeg itself refuses differs with its version and with the file's name."""
    make_video("part.ts", frames=5)
    (tmp_path / "list.m3u8").write_text(PLAYLISTS["hls"].format("part.ts"))
    assert len(list(VideoSource(str(tmp_path / "list.m3u8")).frames())) == 5
    with pytest.raises(StepError, match="^video: cannot open: "):
        VideoSource(str(tmp_path / "list.m3u8"), shown="video", formats=CONTAINERS)


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", {}), ("a.mkv", {}), ("a.avi", {}), ("a.ts", {}), ("a.flv", {}), ("a.mov", {})]
)
def test_common_containers_are_taken(name, options, make_video):
    with open_content(make_video(name, frames=5, options=options).read_bytes()) as source:
        assert len(list(itertools.islice(source.frames(), 5))) == 5
