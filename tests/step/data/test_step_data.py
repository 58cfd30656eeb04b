"""step-data's commands: what they print, and what they say of bad input."""

import shutil
from fractions import Fraction

import pytest
from helpers import assert_one_error, run_command

from step.data.cli import main

TRUTH = "v,0002,0.1,0.1,0.5,0.5,12,0\nv,0003,0.1,0.1,0.5,0.5,80,0\n"


@pytest.fixture
def place(make_video, tmp_path):
    (tmp_path / "videos").mkdir()
    make_video("v.mp4", frames=24 * 5, rate=Fraction(24)).rename(tmp_path / "videos" / "v.mp4")
    (tmp_path / "gt.csv").write_text(TRUTH)
    return tmp_path


@pytest.fixture
def run(capsys):
    return lambda *words: run_command(main, capsys, *words)


def _extracted(place, run, *more):
    return run("extract", place / "videos", "-o", place / "frames", "--workers", "1", *more)


def test_prepare(place, run):
    (place / "gt.csv").write_text(TRUTH + TRUTH)
    (place / "map.pbtxt").write_text('item { name: "stand" id: 12 }')
    words = ("prepare", place / "gt.csv", "-o", place / "out.csv", "--label-map", place / "map.pbtxt")
    code, printed, notes = run(*words)
    assert code == 0
    assert "out.csv: 1 box in 1 key frame of 1 video" in printed
    assert "dropped 2 rows that repeat an earlier row" in notes
    assert "dropped 1 rows that are of classes that the label map has not" in notes
    assert run(*words, "-q") == (0, printed, "")


def test_extract_and_again(place, run):
    code, printed, error = _extracted(place, run)
    assert code == 0, error
    assert "120 frames of 1 videos; 5 seconds written, 0 were there" in printed
    assert "0 seconds written, 5 were there" in _extracted(place, run)[1]


def test_extract_what_the_clips_need(place, run):
    (place / "gt.csv").write_text("v,0003,0.1,0.1,0.5,0.5,12,0\n")
    code, printed, error = _extracted(place, run, "--truth", place / "gt.csv")
    assert code == 0, error
    assert "4 seconds written" in printed
    assert sorted(path.name for path in (place / "frames" / "v").iterdir()) == [
        "00001",
        "00002",
        "00003",
        "00004",
        "index.json",
    ]


def test_key_frames_that_the_video_has_not_are_named(place, run):
    (place / "gt.csv").write_text("v,0003,0.1,0.1,0.5,0.5,12,0\nv,0030,0.1,0.1,0.5,0.5,12,0\n")
    code, _, notes = _extracted(place, run, "--truth", place / "gt.csv")
    assert code == 0, notes
    assert "v: 1 key frame of --truth without frames (second 30): in a gap of the video or beyond it" in notes
    (place / "gt.csv").write_text("v,0030,0.1,0.1,0.5,0.5,12,0\n")
    assert "(second 30)" in _extracted(place, run, "--truth", place / "gt.csv")[2]


def test_a_good_data_set(place, run):
    _extracted(place, run)
    code, printed, notes = run("check", place / "gt.csv", "--frames", place / "frames")
    assert code == 0
    assert printed.endswith("gt.csv: nothing is wrong\n")
    assert notes == "not checked: whether its classes are the data set's; that needs --label-map FILE\n"


def test_what_could_not_be_checked_is_said(place, run):
    (place / "map.pbtxt").write_text('item { name: "stand" id: 12 } item { name: "watch" id: 80 }')
    code, printed, notes = run("check", place / "gt.csv", "--label-map", place / "map.pbtxt")
    assert code == 0
    assert printed.endswith("gt.csv: nothing is wrong in the table\n")
    assert notes == "not checked: whether every clip's frames are there and whole; that needs --frames FOLDER\n"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing second", "seconds 1 are missing; extract them: step-data extract"),
        ("missing frame", "seconds 2 lack frames or hold damaged ones"),
        ("truncated frame", "seconds 2 lack frames or hold damaged ones"),
        ("no frames", "in the csv, but has no frames"),
        ("beyond the end", "second 9 is beyond the video, which ends in second 4"),
        ("label", "line 2: class 80 is not in the label map (1 rows)"),
        ("box", "line 3: the box is [0.0, 0.0, 1.5, 1.0]; corners must be within [0, 1]"),
        ("repeated", "line 3: repeats line 1; step-data prepare drops it"),
        ("index", "index.json: is damaged"),
    ],
)
def test_what_is_wrong_is_listed(damage, said, place, run):
    _extracted(place, run)
    (place / "map.pbtxt").write_text('item { name: "stand" id: 12 } item { name: "watch" id: 80 }')
    frames, truth = place / "frames" / "v", place / "gt.csv"
    if damage == "missing second":
        shutil.rmtree(frames / "00001")
        index = frames / "index.json"
        index.write_text(index.read_text().replace('"00001": 24, ', ""))
    elif damage == "missing frame":
        (frames / "00002" / "00003.jpg").unlink()
    elif damage == "truncated frame":
        (frames / "00002" / "00003.jpg").write_bytes((frames / "00002" / "00003.jpg").read_bytes()[:-50])
    elif damage == "no frames":
        frames.rename(place / "frames" / "w")
    elif damage == "beyond the end":
        truth.write_text(TRUTH + "v,0009,0.1,0.1,0.5,0.5,12,0\n")
    elif damage == "label":
        (place / "map.pbtxt").write_text('item { name: "stand" id: 12 }')
    elif damage == "box":
        truth.write_text(TRUTH + "v,0002,0,0,1.5,1,12,0\n")
    elif damage == "repeated":
        truth.write_text(TRUTH + TRUTH.splitlines()[0] + "\n")
    else:
        (frames / "index.json").write_text("[")
    done = run("check", truth, "--frames", place / "frames", "--label-map", place / "map.pbtxt")
    assert done[0] == 1
    assert said in done[1].replace("\n", " ")
    assert "1 problem found, listed above" in done[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "none.csv", "-o", "out.csv"], "none.csv: no such file"),
        (["extract", "none", "-o", "f"], "none: no such file or folder"),
        (["extract", "empty", "-o", "f"], "empty: the folder holds no video"),
        (["extract", "videos", "-o", "f", "--workers", "0"], "--workers is 0; it must be a whole number of at least 1"),
        (["extract", "videos", "videos/v.mp4", "-o", "f"], "both would be 'v'; rename one"),
        (["extract", "videos", "-o", "f", "--truth", "other.csv"], "video .w. is not among VIDEOS"),
        (["extract", "text", "-o", "f"], "text.mp4: cannot open"),
        (["extract", "videos", "-o", "gt.csv"], "gt.csv"),
        (["check", "gt.csv", "--frames", "none"], "none: no such folder"),
        (["check", "none.csv"], "none.csv: no such file"),
    ],
)
def test_bad_input(words, said, place, run, monkeypatch):
    monkeypatch.chdir(place)
    (place / "empty").mkdir()
    (place / "text").mkdir()
    (place / "text" / "text.mp4").write_text("no video")
    (place / "other.csv").write_text("w,0002,0.1,0.1,0.5,0.5,12,0\n")
    assert_one_error(run(*words), said)
