"""What is on disk is what it is: names, endings, folders, pipes and devices."""

import os
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from step_runtime.sources.frame_folder import FrameFolderSource
from step_runtime.sources.open import find_sources, open_source, source_names

from step import StepError
from step.data.videos import videos_by_name
from step.video.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, check_regular_file, is_url, read_folder
from step.video_stream import VideoStream

FPS = Fraction(30)
# FFmpeg's formats that hold moving pictures, by the names under which PyAV knows their endings.
FORMATS = (
    "mov matroska,webm avi mpegts mpeg flv asf ogg gif mxf gxf nut dv rm dhav h264 hevc vvc obu ivf mjpeg yuv4mpegpipe"
)
NO_FILMS = {
    ".avif",
    ".heic",
    ".heif",
    ".isma",
    ".m4a",
    ".m4b",
    ".mka",
    ".mks",
    ".mpo",
    ".ra",
    ".ogg",
    ".wma",
    ".asf_o",
    ".ism",
}


def test_endings_are_those_of_what_the_reader_opens():
    for name in FORMATS.split():
        endings = set()
        for mode in "rw":
            try:
                endings |= {
                    f".{ending}"
                    for ending in av.ContainerFormat(name.split(",")[0] if mode == "w" else name, mode).extensions
                }
            except ValueError:
                continue
        assert endings - NO_FILMS <= VIDEO_SUFFIXES, name


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_images_are_read(suffix, tmp_path):
    ok, content = cv2.imencode(
        suffix if suffix != ".pnm" else ".ppm",
        np.full((8, 8, 3 if suffix not in (".pgm", ".pbm") else 1), 200, np.uint8),
    )
    assert ok
    (tmp_path / f"a{suffix}").write_bytes(content.tobytes())
    assert len(list(FrameFolderSource(tmp_path, fps=FPS).frames())) == 1


@pytest.mark.parametrize(
    "name", ["12:30:05.mp4", "-v.mp4", "a,b.mp4", "видео 1.mp4", "100%d.mp4", "007.mp4", "http:.mp4"]
)
def test_any_name(name, make_video, tmp_path, monkeypatch):
    os.rename(make_video("plain.mp4", frames=10), tmp_path / name)  # noqa: PTH104 - the name is the point
    monkeypatch.chdir(tmp_path)
    for source in (name, str(tmp_path / name), f"file://{tmp_path / name}"):
        (location,) = find_sources(source, frames_fps=FPS)
        assert len(list(open_source(location, frames_fps=FPS).frames())) == 10
    assert source_names([name]) == [name.removesuffix(".mp4")]


def test_a_number_is_a_camera_only_where_nothing_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_sources("00902", frames_fps=FPS) == ["00902"]
    (tmp_path / "00902").mkdir()
    cv2.imwrite("00902/1.jpg", np.zeros((8, 8, 3), np.uint8))
    (folder,) = find_sources("00902", frames_fps=FPS)
    source = open_source(folder, frames_fps=FPS)
    assert (source.name, len(list(source.frames()))) == ("00902", 1)
    monkeypatch.chdir(tmp_path / "00902")
    assert FrameFolderSource(find_sources(".", frames_fps=FPS)[0], fps=FPS).name == "00902"


def test_what_is_left_out_is_said(make_video, tmp_path):
    folder = tmp_path / "mix"
    folder.mkdir()
    for name in ("b.MTS", "a.mp4", "c.GIF", "._a.mp4", "notes.txt", "thumb.jpg"):
        (folder / name).write_bytes(b"x")
    (folder / "sub").mkdir()
    said = []
    found = find_sources(str(folder), frames_fps=FPS, say=said.append)
    assert found == [str(folder / name) for name in ("a.mp4", "b.MTS", "c.GIF")]
    assert said == [
        f"{folder}: skipped 4 entries that are neither videos nor folders of frames: thumb.jpg, ._a.mp4, notes.txt and "
        "1 more"
    ]
    said.clear()
    assert sorted(videos_by_name([folder], say=said.append)) == ["a", "b", "c"]
    assert "skipped 4 entries that are no videos" in said[0]


def test_frames_with_odd_names(tmp_path):
    for number, name in enumerate(("²1.png", "²2.png", "frame10.png", "frame9.png", "frame٣.png")):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), number, np.uint8))
    (tmp_path / "._frame9.png").write_bytes(b"Mac OS X")
    names = [path.name for path in read_folder(tmp_path).frames]
    assert names.index("frame9.png") < names.index("frame10.png")
    assert len(list(FrameFolderSource(tmp_path, fps=FPS).frames())) == 5


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nothing")
    for name, said in (
        ("pipe", "is a pipe, which can be read once only"),
        ("link", "is a link to nothing"),
        ("none", "no such file"),
        (".", "is a folder, not a video"),
    ):
        with pytest.raises(StepError, match=said):
            VideoStream(str(tmp_path / name))
    with pytest.raises(StepError, match="is a device, not a file"):
        find_sources("/dev/null", frames_fps=FPS)
    with pytest.raises(StepError, match="pipe: is a pipe"):
        videos_by_name([tmp_path / "pipe"])
    with pytest.raises(StepError, match="no such file"):
        check_regular_file(tmp_path / "none")


def test_urls():
    assert is_url("rtsp://host/cam")
    assert not is_url("file:///tmp/a.mp4")
    assert not is_url("12:30:05.mp4")
