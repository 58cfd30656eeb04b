"""A data set's folder: its parts, its key frames, and their clips from frames and from videos."""

from fractions import Fraction

import numpy as np
import pytest

from step import StepConfig, StepError
from step.data.dataset_folder import DatasetFolder
from step.data.extract import extract

CONFIG = StepConfig(image_size_px=64)


@pytest.fixture
def data(make_video, tmp_path):
    """Five seconds of video in `away`, their frames in `frames`, and `val.csv`."""
    folder = tmp_path / "data"
    (folder / "away").mkdir(parents=True)
    make_video("v.mp4", frames=24 * 5, rate=Fraction(24)).rename(folder / "away" / "v.mp4")
    extract(folder / "away" / "v.mp4", folder / "frames")
    (folder / "val.csv").write_text("w,7\nv,3,0.1,0.1,0.9,0.9,14,0\nv,2,0.1,0.1,0.9,0.9,12,0\n")
    return folder


def _with_videos_only(data):
    (data / "frames").rename(data / "no_frames")
    (data / "away").rename(data / "videos")
    return DatasetFolder.open(data, "val")


def test_parts(data):
    folder = DatasetFolder.open(data, "val")
    assert (folder.truth, folder.frames) == (data / "val.csv", data / "frames")
    assert (folder.label_map, folder.exclude) == (None, None)
    (data / "label_map.pbtxt").touch()
    (data / "val_excluded.csv").touch()
    folder = DatasetFolder.open(data, "val")
    assert (folder.label_map, folder.exclude) == (data / "label_map.pbtxt", data / "val_excluded.csv")


def test_key_frames_in_order(data):
    """Those without boxes, too."""
    assert DatasetFolder.open(data, "val").key_frames() == [("v", 2), ("v", 3), ("w", 7)]
    (data / "val.csv").write_text("v,2.5,0.1,0.1,0.9,0.9,12,0\n")
    with pytest.raises(StepError, match=r"val.csv: second 2.5 of v; key frames are whole seconds"):
        DatasetFolder.open(data, "val").key_frames()


def test_videos_instead_of_frames(data):
    """The same clips and key frames within what JPEG loses."""
    folder = DatasetFolder.open(data, "val")
    clip, frame = folder.read("v", 2, CONFIG), folder.key_frame("v", 2)
    from_videos = _with_videos_only(data)
    assert from_videos.frames is None
    other, other_frame = from_videos.read("v", 2, CONFIG), from_videos.key_frame("v", 2)
    assert clip.shape == other.shape == (36, 64, 64, 3)
    assert frame.shape == other_frame.shape == (360, 540, 3)
    assert np.abs(clip.astype(int) - other).mean() < 3
    assert np.abs(frame.astype(int) - other_frame).mean() < 3
    assert np.abs(frame.astype(int) - from_videos.key_frame("v", 3)).mean() > 3  # another second, another frame


def test_a_shorter_clip_has_the_same_key_frame(data):
    """The key frame begins the second half of both."""
    folder = DatasetFolder.open(data, "val")
    short = StepConfig(image_size_px=64, chunks=(1,))
    np.testing.assert_array_equal(folder.read("v", 2, short), folder.read("v", 2, CONFIG)[12:24])


def test_only_videos_are_videos(data):
    (data / "away" / "v.json").write_text("{}")
    assert _with_videos_only(data).read("v", 2, CONFIG).shape == (36, 64, 64, 3)


def test_a_video_that_is_not_there(data):
    with pytest.raises(StepError, match=r"video 'w' of the csv is not in the folder of videos, .*data/videos"):
        _with_videos_only(data).read("w", 7, CONFIG)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("val.csv", "`data` .*: has no val.csv; write it with step-data prepare"),
        ("frames", "`data` .*: has neither frames nor videos"),
    ],
)
def test_what_is_missing(missing, said, data):
    (data / missing).rename(data / "elsewhere")
    with pytest.raises(StepError, match=said):
        DatasetFolder.open(data, "val")
