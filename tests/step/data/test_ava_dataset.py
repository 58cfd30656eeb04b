"""Samples: clips, people, labels, neighbours, proposals; from frames and from videos."""

import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from step import StepError
from step.classes import AVA_CLASS_NAMES, CHALLENGE_CLASS_IDS
from step.data import AvaDataset
from step.data.extract import extract
from step.data.frame_store import read_clip

TRUTH = """v,0002,0.1,0.2,0.5,0.6,12,7
v,0002,0.1,0.2,0.5,0.6,80,7
v,0002,0.5,0.2,0.9,0.6,14,8
v,0003,0.2,0.2,0.6,0.6,12,7
v,0004,0.5,0.2,0.9,0.6,2,8
"""


@pytest.fixture
def place(make_video, tmp_path):
    """Six seconds of video in `videos`, their frames in `frames`, and `gt.csv`."""
    video = make_video("v.mp4", frames=24 * 6, rate=Fraction(24), size=(96, 64))
    (tmp_path / "videos").mkdir()
    video.rename(tmp_path / "videos" / "v.mp4")
    extract(tmp_path / "videos" / "v.mp4", tmp_path / "frames")
    (tmp_path / "gt.csv").write_text(TRUTH)
    return tmp_path


def _dataset(place, **options):
    return AvaDataset(truth=place / "gt.csv", **({"frames": place / "frames"} | options))


def test_samples(place):
    dataset = _dataset(place)
    assert dataset.key_frames == [("v", 2), ("v", 3)]  # class 2 of second 4 is none of the sixty
    sample = dataset[0]
    assert isinstance(sample["frames"], tv_tensors.Video)
    assert sample["frames"].dtype == torch.uint8
    assert sample["frames"].shape == (36, 3, 360, 540)
    np.testing.assert_array_equal(sample["frames"].permute(0, 2, 3, 1), read_clip(place / "frames", "v", 2))
    assert isinstance(sample["boxes"], tv_tensors.BoundingBoxes)
    expected = torch.tensor([[54.0, 72, 270, 216], [270, 72, 486, 216]])
    torch.testing.assert_close(sample["boxes"].as_subclass(torch.Tensor), expected)
    columns = [CHALLENGE_CLASS_IDS.index(label) for label in (12, 80, 14)]
    assert torch.nonzero(sample["labels"]).tolist() == [[0, columns[0]], [0, columns[1]], [1, columns[2]]]
    assert (sample["video"], sample["second"]) == ("v", 2)


def test_neighbours(place):
    sample = _dataset(place)[0]
    assert sample["neighbour_known"].tolist() == [[False, True], [False, False]]
    assert sample["neighbour_boxes"].shape == (4, 4)
    assert sample["neighbour_boxes"][1].tolist() == pytest.approx([108, 72, 324, 216])
    torch.testing.assert_close(sample["neighbour_boxes"][[0, 2, 3]], sample["boxes"][[0, 1, 1]])


def test_eighty_classes(place):
    dataset = _dataset(place, class_ids=tuple(AVA_CLASS_NAMES))
    assert len(dataset) == 3
    assert dataset[2]["labels"].shape == (1, 80)
    assert dataset[2]["labels"][0, 1] == 1


def test_rows_without_person_ids_are_grouped_by_box(place):
    (place / "gt.csv").write_text("\n".join(line.rpartition(",")[0] + "," for line in TRUTH.splitlines()))
    sample = _dataset(place)[0]
    assert sample["labels"].sum(1).tolist() == [2, 1]
    assert not sample["neighbour_known"].any()


def test_straight_from_the_video(place):
    """The same images within what JPEG loses."""
    from_frames, from_video = _dataset(place)[1], _dataset(place, frames=None, videos=place / "videos")[1]
    difference = (from_frames["frames"].float() - from_video["frames"].float()).abs()
    assert from_video["frames"].shape == from_frames["frames"].shape
    assert difference.mean() < 3
    assert difference.mean((1, 2, 3)).max() < 4  # no frame is another one


def test_proposals(place):
    (place / "p.csv").write_text("v,2,0.1,0.1,0.2,0.2,1,0.9\nv,2,0.1,0.1,0.2,0.2,1,0.8\nv,2,0.3,0.1,0.4,0.2,1,0.7\n")
    dataset = _dataset(place, proposals=place / "p.csv")
    assert dataset[0]["proposals"].shape == (1, 4)
    assert dataset[1]["proposals"].shape == (0, 4)
    (place / "p.csv").write_text("w,2,0.1,0.1,0.2,0.2,1,0.9\n")
    with pytest.raises(StepError, match="p.csv: no proposal lies in a key frame of"):
        _dataset(place, proposals=place / "p.csv")


def test_transforms_move_images_and_boxes_together(place):
    plain = _dataset(place)[0]
    flipped = _dataset(place, transform=v2.RandomHorizontalFlip(p=1))[0]
    assert torch.equal(flipped["frames"], plain["frames"].flip(-1))
    torch.testing.assert_close(flipped["boxes"][:, 0], 540 - plain["boxes"][:, 2])
    torch.testing.assert_close(flipped["neighbour_boxes"][:, 0], 540 - plain["neighbour_boxes"][:, 2])


def test_workers_give_the_same(place):
    dataset = _dataset(place)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for index, sample in enumerate(loader):
        assert torch.equal(sample["frames"], dataset[index]["frames"])


def test_wrong_data(place):
    with pytest.raises(StepError, match="give either the folder of extracted frames or that of the videos"):
        _dataset(place, videos=place / "videos")
    with pytest.raises(StepError, match="gt.csv: has no box of the 1 classes"):
        _dataset(place, class_ids=(13,))
    (place / "gt.csv").write_text("w,0002,0.1,0.2,0.5,0.6,12,7\n")
    with pytest.raises(StepError, match="no frames of second 0 of w|no frames of second 1 of w"):
        _dataset(place)[0]
    with pytest.raises(StepError, match="video 'w' of the csv is not in the folder"):
        _dataset(place, frames=None, videos=place / "videos")[0]
    (place / "gt.csv").write_text("v,2.5,0.1,0.2,0.5,0.6,12,7\n")
    with pytest.raises(StepError, match="line 1: the second is 2.5; key frames lie on whole seconds"):
        _dataset(place)


def test_a_clip_loads_in_good_time(place):
    """60 ms a core is asked for; a busy machine is given three times that."""
    dataset = _dataset(place)
    times_s = []
    for _ in range(5):
        start_s = time.process_time()
        dataset[0]
        times_s.append(time.process_time() - start_s)
    assert min(times_s) < 0.18
