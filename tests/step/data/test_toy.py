"""Toy AVA: the same twice, annotated rightly, and not to be known from single frames."""

import math
import sys

import numpy as np
import pytest
from helpers import assert_one_error, run_command

from step import StepConfig
from step.classes import AVA_CLASS_NAMES
from step.data.check import check
from step.data.cli import main
from step.data.dataset_folder import DatasetFolder
from step.data.toy.toy import ACTIONS, FPS, HEIGHT_PX, KEY_SECONDS, SECONDS, WIDTH_PX, generate, generate_frames
from step.data.toy.toy_figures import Body, draw, pose
from step.evaluation.ava_csv import read_boxes
from step.evaluation.label_map import read_label_map
from step.video_stream import VideoStream

BODY = Body(height_px=100.0, facing=1, phase=0.3, colours=((255, 0, 0),) * 4)


def test_a_file_in_the_way(tmp_path, capsys):
    (tmp_path / "f").touch()
    assert_one_error(run_command(main, capsys, "toy", tmp_path / "f"), "f: is a file; name a new folder")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "toy"
    generate(folder, videos={"train": 2, "val": 6})
    return folder


def _frames(path):
    with VideoStream(str(path)) as stream:
        return [frame.rgb() for frame in stream.decode()]


def test_the_same_twice(toy, tmp_path):
    """Annotations and files to the byte, and so the frames, whatever was made before them."""
    generate(tmp_path / "again", videos={"train": 1, "val": 6})
    assert (tmp_path / "again" / "val.csv").read_bytes() == (toy / "val.csv").read_bytes()
    for number in range(6):
        name = f"videos/val_{number:03d}.mp4"
        assert (tmp_path / "again" / name).read_bytes() == (toy / name).read_bytes(), name


def test_frames_without_a_video(toy, tmp_path, monkeypatch):
    """The same truth, a good data set without PyAV, and the frames that extraction gives of the videos."""
    monkeypatch.setitem(sys.modules, "av", None)
    generate_frames(tmp_path / "toy", videos={"train": 1, "val": 1})
    folder = DatasetFolder.open(tmp_path / "toy", "val")
    assert folder.frames is not None
    assert list(check(folder.truth, folder.frames, label_map=folder.label_map)) == []
    rows = (toy / "val.csv").read_text().splitlines(keepends=True)
    assert folder.truth.read_text() == "".join(row for row in rows if row.startswith("val_000,"))
    clip = folder.read("val_000", 3, StepConfig(image_size_px=360))
    monkeypatch.undo()
    video = DatasetFolder.open(toy, "val").read("val_000", 3, StepConfig(image_size_px=360))
    assert np.abs(clip.astype(float) - video).mean() < 4  # H.264 at crf 16 and another scaler stand between


def test_seeds_and_splits_differ(toy, tmp_path):
    generate(tmp_path / "other", videos={"train": 1, "val": 1}, seed=1)
    rows = [
        (folder / f"{split}.csv").read_text()[9:] for folder in (toy, tmp_path / "other") for split in ("train", "val")
    ]
    assert len({row[:60] for row in rows}) == 4


def test_it_is_a_good_data_set(toy):
    assert list(check(toy / "val.csv", None, label_map=toy / "label_map.pbtxt")) == []
    names = read_label_map(toy / "label_map.pbtxt")
    assert names == {label: AVA_CLASS_NAMES[label] for labels in ACTIONS.values() for label in labels}
    table = read_boxes(toy / "val.csv", last="person")
    assert set(table.second) <= set(KEY_SECONDS)
    people = {}
    for row in range(len(table)):
        people.setdefault((table.video[row], table.second[row]), set()).add(table.last[row])
    assert max(map(len, people.values())) <= 3
    frames = _frames(toy / "videos" / "val_000.mp4")
    assert len(frames) == FPS * SECONDS
    assert frames[0].shape == (HEIGHT_PX, WIDTH_PX, 3)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("facing", [1, -1])
def test_boxes_hold_the_whole_figure_and_no_more(action, facing):
    body = Body(100.0, facing, 0.3, BODY.colours)
    for time_s in np.arange(0, 2, 0.13):
        canvas = np.zeros((240, 320, 3), np.uint8)
        box = draw(canvas, body, (160.0, 200.0), action, float(time_s))
        rows, columns = np.nonzero(canvas[..., 0])
        drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(box - drawn).max() <= 3  # rounded ends, blurred edges


def test_a_single_frame_does_not_tell_standing_from_walking():
    """Every pose of a standing figure is one of a walking one; it only does not move."""
    for phase in np.linspace(0, 1, 9):
        standing = Body(100.0, 1, float(phase), BODY.colours)
        assert pose("stand", standing, 0.0) == pose("stand", standing, 3.7) == pose("walk", standing, 0.0)
    assert pose("walk", BODY, 0.0) != pose("walk", BODY, 0.3)


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - {"stand"}))
def test_everything_else_moves(action):
    poses = [pose(action, BODY, time_s) for time_s in np.arange(0, 1, 0.1)]
    assert len(set(poses)) >= 5


def test_running_is_faster_and_wider_than_walking():
    def widest(action):
        return max(abs(thigh) for time_s in np.arange(0, 2, 0.05) for thigh in pose(action, BODY, time_s).thighs)

    assert widest("run") > 1.5 * widest("walk")
    assert math.isclose(widest("walk"), 0.45, rel_tol=0.02)


def test_the_command(tmp_path, capsys):
    words = ("toy", tmp_path / "toy", "--train", "1", "--val", "1")
    code, printed, error = run_command(main, capsys, *words)
    assert code == 0, error
    assert "1 training and 1 validation videos" in printed
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [
        "label_map.pbtxt",
        "train.csv",
        "val.csv",
        "videos",
    ]
    assert_one_error(run_command(main, capsys, *words), "toy: is not empty; name a new folder")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--val", "0"], "--val is 0; it must be a whole number of at least 1"),
        (["--seed", "-1"], "--seed is -1; it must be a whole number from 0 to 4294967295"),
    ],
)
def test_bad_options(words, said, tmp_path, capsys):
    assert_one_error(run_command(main, capsys, "toy", tmp_path / "toy", *words), said)
    assert not (tmp_path / "toy").exists()
