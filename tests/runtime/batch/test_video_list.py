"""Which videos a source stands for, and what they are called."""

import os
import zipfile
from pathlib import Path

import pytest
from step_runtime.batch.fetch import local_file
from step_runtime.batch.records import file_key
from step_runtime.batch.shards import Shard
from step_runtime.batch.video_list import Found, Video, list_videos, name_videos, shown_location

from step import StepError


def _names(*sources, given=None):
    return [video.name for video in name_videos(list_videos([str(each) for each in sources]), given or {})]


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    for name in ("clip10.mp4", "clip9.mp4", "a/clip.mp4", "b/clip.MKV", ".hidden/x.mp4", "notes.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_is_searched_through(archive):
    assert _names(archive) == ["clip9", "clip10", "a/clip", "b/clip"]


def test_patterns(archive):
    assert _names(f"{archive}/*.mp4") == ["clip10", "clip9"]
    assert _names(f"{archive}/**/*.mp4") == ["a/clip", "clip10", "clip9"]


def test_a_list_has_paths_relative_to_it_and_may_name_what_is_missing(archive, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"# comment\narchive/a/clip.mp4\n\n{archive}/clip9.mp4\ngone.mp4\narchive/a/clip.mp4\n")
    said: list[str] = []
    found = list_videos([str(path)], say=said.append)
    assert [each.location for each in found] == [
        str(archive / "a/clip.mp4"),
        str(archive / "clip9.mp4"),
        str(tmp_path / "gone.mp4"),
    ]
    assert said == ["1 of 4 videos were named more than once"]
    assert [video.name for video in name_videos(found, {})] == ["archive/a/clip", "clip9", "gone"]


def test_two_with_one_name_keep_their_suffixes_or_get_numbers(tmp_path):
    found = [Found(f"/{place}", name) for place, name in (("x/a.mp4", "a.mp4"), ("x/a.avi", "a.avi"))]
    assert [video.name for video in name_videos(found, {})] == ["a.mp4", "a.avi"]
    found.append(Found("/y/a.mp4", "a.mp4"))
    assert [video.name for video in name_videos(found, {})] == ["a.mp4", "a.avi", "a.mp4-2"]


def test_names_that_were_given_stay(tmp_path):
    found = [Found("/x/a.mp4", "a.mp4"), Found("/x/a.avi", "a.avi"), Found("/y/a.mkv", "a.mkv")]
    assert [video.name for video in name_videos(found, {"/x/a.mp4": "a"})] == ["a", "a.avi", "a.mkv"]
    assert [video.name for video in name_videos([Found("/z/a.mov", "a.mov")], {"/x/a.mp4": "a"})] == ["a.mov"]


def test_a_name_that_is_no_utf8_is_escaped(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes(b"x")
    (video,) = name_videos(list_videos([str(tmp_path)]), {})
    assert video.name == "caf\\udce9"
    assert video.location == str(tmp_path / name)
    assert video.shown.endswith("caf\\udce9.mp4")


@pytest.mark.parametrize("name", ["..", "a/b", "ü", "x" * 300, "a%2Fb"])
def test_every_name_has_a_file_name_of_its_own(name):
    key = file_key(name)
    assert "/" not in key
    assert len(f"{key}.parquet") < 255
    assert key != file_key(name + "x")
    assert key.isascii()


def test_files_behind_urls_are_fetched_and_removed(tmp_path):
    pytest.importorskip("fsspec")
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.writestr("day/one.mp4", b"1")
        archive.writestr("day/two.mp4", b"2")
        archive.writestr("day/notes.txt", b"3")
    chain = f"zip://day::file://{tmp_path}/clips.zip"
    videos = name_videos(list_videos([chain]), {})
    assert [video.name for video in videos] == ["one", "two"]
    with local_file(videos[1].location, scratch=tmp_path) as path:
        assert Path(path).read_bytes() == b"2"
    assert not Path(path).exists()
    assert [
        video.name for video in name_videos(list_videos([f"zip://day/*.mp4::file://{tmp_path}/clips.zip"]), {})
    ] == [
        "one",
        "two",
    ]
    with pytest.raises(StepError, match="cannot be fetched"), local_file(chain.replace("day", "x.mp4"), scratch=None):
        pass


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gone", "gone: no such file or folder"),
        ("*.nothing", "no file matches"),
        ("rtsp://10.0.0.1/x", "is a live stream"),
        ("nosuch://bucket/x.mp4", "cannot be opened: Protocol not known"),
    ],
)
def test_what_cannot_be_a_source(source, said):
    pytest.importorskip("fsspec")
    with pytest.raises(StepError, match=said):
        list_videos([source])


def test_empty_folders_and_lists_are_said(tmp_path):
    with pytest.raises(StepError, match="holds no videos"):
        list_videos([str(tmp_path)])
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(StepError, match="names no videos"):
        list_videos([str(tmp_path / "list.txt")])
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(StepError, match="no UTF-8"):
        list_videos([str(tmp_path / "list.txt")])


def test_passwords_are_not_shown():
    assert shown_location("ftp://me:secret@host/x.mp4") == "ftp://me:***@host/x.mp4"


def test_shards_are_parts_that_do_not_change_with_what_else_is_there():
    videos = [Video(f"v{number}", f"/videos/v{number}.mp4") for number in range(100)]
    parts = [Shard(index, 3).take(videos) for index in range(3)]
    assert sorted((video for part in parts for video in part), key=videos.index) == videos
    assert all(15 < len(part) < 55 for part in parts)
    assert Shard(1, 3).take(videos[::2]) == [video for video in parts[1] if video in videos[::2]]


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "1/0", "a/b", "1/", "\u0663/4"])
def test_shards_that_are_none(text):
    with pytest.raises(StepError, match="--shard is"):
        Shard.parse(text)
