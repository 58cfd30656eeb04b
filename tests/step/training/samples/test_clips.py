"""The order and augmentation of clips; augmentation moves frames and boxes alike."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from step import StepError
from step.evaluation.box_table import BoxTable
from step.training.samples.augmentation import Augmentation, AugmentationOptions
from step.training.samples.batch import collate
from step.training.samples.clips import EpochBatches, TrainingClips, batches_of_epoch
from step.training.samples.photometric import PhotometricChange, change_colours
from step.training.validation_images import sample_images

NOTHING = {"photometric": False, "crop": False, "flip": False, "erase": False}


def _batches(**changes):
    values = {"count": 50, "batch": 4, "rank": 0, "world": 1, "seed": 1, "epoch": 2} | changes
    return list(EpochBatches(**values))


def test_an_epoch_has_every_clip_once():
    batches = _batches()
    assert len(batches) == 12 == batches_of_epoch(50, batch=4, world=1)
    assert len(set(itertools.chain(*batches))) == 48
    assert _batches() == batches
    assert _batches(epoch=3) != batches
    assert _batches(seed=2) != batches


def test_processes_split_the_batches_of_one():
    parts = [_batches(batch=2, rank=rank, world=2) for rank in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == _batches()


def test_going_on_in_the_middle():
    assert _batches(first=5) == _batches()[5:]
    assert len(EpochBatches(count=50, batch=4, rank=0, world=1, seed=1, epoch=2, first=5)) == 7


def _sample(people=2):
    """A white person on black at each box, so that pixels say where the boxes should be."""
    boxes = torch.tensor([[20.0, 30, 60, 90], [90.0, 20, 130, 100]])[:people]
    frames = torch.zeros(36, 3, 120, 160, dtype=torch.uint8)
    for x1, y1, x2, y2 in boxes.int().tolist():
        frames[:, :, y1:y2, x1:x2] = 255

    def wrap(values):
        return tv_tensors.BoundingBoxes(values, format="XYXY", canvas_size=(120, 160))

    neighbours = boxes[:, None].repeat(1, 2, 1)
    return {
        "frames": tv_tensors.Video(frames),
        "boxes": wrap(boxes),
        "labels": torch.eye(2)[:people],
        "neighbour_boxes": wrap(neighbours.reshape(-1, 4)),
        "neighbour_known": torch.ones(people, 2, dtype=torch.bool),
        "proposals": wrap(boxes),
        "video": "v",
        "second": 3,
    }


def _seen(image, box):
    """Share of white inside a box and of all white that is inside, of one image [3, H, W]."""
    white = image[0] > 127
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    return float(white[y1:y2, x1:x2].float().mean())


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_the_pixels(seed):
    torch.manual_seed(seed)
    augment = Augmentation(
        image_size_px=64, clip_frames=36, options=AugmentationOptions(**NOTHING | {"crop": True, "flip": True})
    )
    done = augment(_sample())
    assert done["frames"].shape == (36, 3, 64, 64)
    assert 1 <= len(done["boxes"]) == len(done["labels"]) == len(done["neighbour_known"])
    assert len(done["neighbour_boxes"]) == 2 * len(done["boxes"])
    assert torch.equal(done["frames"][0], done["frames"][35])  # every frame alike
    for box, label in zip(done["boxes"], done["labels"], strict=True):
        assert label.sum() == 1
        if float((box[2:] - box[:2]).min()) > 4:
            assert _seen(done["frames"][17], box) > 0.8
    for person, known in enumerate(done["neighbour_known"]):
        if known.any():  # the neighbours were where the person is
            assert torch.equal(done["neighbour_boxes"][2 * person + int(known.nonzero()[0])], done["boxes"][person])


def test_shorter_clips_are_the_middle_ones():
    sample = _sample()
    sample["frames"] = tv_tensors.Video(torch.arange(36, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 120, 160))
    done = Augmentation(image_size_px=48, clip_frames=12, options=None)(sample)
    assert done["frames"][:, 0, 0, 0].tolist() == list(range(12, 24))
    with pytest.raises(StepError, match="the model takes clips of 60 frames; AVA's layout gives 36 a key frame"):
        Augmentation(image_size_px=48, clip_frames=60, options=None)


def test_a_flip():
    for seed in range(20):
        torch.manual_seed(seed)
        done = Augmentation(image_size_px=120, clip_frames=36, options=AugmentationOptions(**NOTHING | {"flip": True}))(
            _sample()
        )
        if done["boxes"][0, 0] != 15:  # 20 / 160 * 120
            assert done["boxes"][0].tolist() == [75, 30, 105, 90]
            return
    pytest.fail("never flipped in 20 tries")


def _with_colours_changed(sample, **options):
    """Augmented [F, H, W, 3], and the augmented sample."""
    done = Augmentation(image_size_px=120, clip_frames=36, options=AugmentationOptions(**NOTHING | options))(sample)
    return change_colours(done["frames"].as_subclass(torch.Tensor).permute(0, 2, 3, 1), done["photometric"]), done


def test_erasing_takes_a_part_of_each_person():
    shares = []
    before = Augmentation(image_size_px=120, clip_frames=36, options=None)(_sample(1))
    assert before["photometric"] == PhotometricChange()
    for seed in range(40):
        torch.manual_seed(seed)
        frames, _ = _with_colours_changed(_sample(1), erase=True)
        assert torch.equal(frames[0], frames[35])
        changed = (frames[17].permute(2, 0, 1) != before["frames"][17]).any(0)
        x1, y1, x2, y2 = before["boxes"][0].int().tolist()
        assert changed.sum() <= changed[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2].sum() + 1
        shares.append(float(changed[y1:y2, x1:x2].float().mean()))
    erased = [share for share in shares if share]
    assert 8 < len(erased) < 32
    assert max(erased) < 0.25


def test_colours_change_and_boxes_stay():
    torch.manual_seed(0)
    sample = _sample()
    sample["frames"] = tv_tensors.Video(torch.full_like(sample["frames"], 100))
    frames, done = _with_colours_changed(sample, photometric=True)
    assert (done["frames"] == 100).all()
    assert (frames != 100).any()
    assert torch.equal(frames[0], frames[35])
    plain = Augmentation(image_size_px=120, clip_frames=36, options=None)(_sample())
    assert torch.equal(done["boxes"], plain["boxes"])


def test_the_colours_of_a_batch_change_clip_by_clip():
    torch.manual_seed(1)
    options = AugmentationOptions(**NOTHING | {"photometric": True, "erase": True})
    samples = [Augmentation(image_size_px=120, clip_frames=36, options=options)(_sample(1)) for _ in range(3)]
    batch = collate([*samples, Augmentation(image_size_px=120, clip_frames=36, options=None)(_sample(1))])
    done = batch.with_colours_changed()
    for index, each in enumerate(batch.photometric):
        assert torch.equal(done.frames[index], change_colours(batch.frames[index], each))
    assert torch.equal(done.frames[3], batch.frames[3])
    assert not torch.equal(done.frames[0], done.frames[1])
    assert torch.equal(done.with_colours_changed().frames, done.frames)


class _Fixed:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return _sample()


def test_a_clip_of_an_epoch_is_always_augmented_the_same_way():
    """Whatever was loaded before, from disk or from memory of the same size."""
    options = AugmentationOptions(**NOTHING | {"crop": True, "flip": True})
    clips = TrainingClips(
        dataset=_Fixed(), augmentation=Augmentation(image_size_px=64, clip_frames=36, options=options), seed=7
    )
    first = [clips[i]["boxes"] for i in range(3)]
    torch.rand(5)
    state = torch.get_rng_state()
    assert all(torch.equal(clips[i]["boxes"], first[i]) for i in (2, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    clips.epoch = 1
    assert any(
        len(clips[i]["boxes"]) != len(first[i]) or not torch.equal(clips[i]["boxes"], first[i]) for i in range(3)
    )


def test_sample_images():
    """Four key frames; the person's box is green, the detection's orange."""
    table = BoxTable(
        path=Path("r.csv"),
        videos=("v",),
        video=np.zeros(2, np.int32),
        second=np.full(2, 3.0),
        boxes_xyxy=np.array([[0.5, 0.25, 0.75, 0.75], [0.1, 0.1, 0.2, 0.2]]),
        label=np.array([12, 14], np.int32),
        last=np.array([0.8, 0.1]),
        lines=np.arange(2),
    )
    plain = Augmentation(image_size_px=120, clip_frames=36, options=None)

    class Plain(_Fixed):
        def __getitem__(self, index):
            return plain(_sample(1))

    image = sample_images(Plain(), table, {12: "stand", 14: "walk"})
    assert image.shape == (240, 3 * 240, 3)
    assert np.abs(image[120, 30].astype(int) - (0, 200, 90)).max() < 40  # 20 / 160 of 240; edges are blended
    assert np.abs(image[120, 120].astype(int) - (255, 170, 30)).max() < 40
    assert image[24:48, 24, 0].max() < 40  # where the box below the score would be


def test_kept_clips_are_not_changed_by_augmentation():
    options = AugmentationOptions(**NOTHING | {"flip": True, "erase": True})
    clips = TrainingClips(
        dataset=_Fixed(), augmentation=Augmentation(image_size_px=64, clip_frames=36, options=options), seed=7
    )
    done = []
    clips.keep_in_memory(lambda i, n: done.append((i, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]
    for epoch in range(6):
        clips.epoch = epoch
        clips[0]
    clips.epoch = 0
    again = [clips[i] for i in range(3)]
    fresh = TrainingClips(
        dataset=_Fixed(), augmentation=Augmentation(image_size_px=64, clip_frames=36, options=options), seed=7
    )
    fresh.keep_in_memory()
    for one, other in zip(again, (fresh[i] for i in range(3)), strict=True):
        assert np.array_equal(one["frames"].numpy(), other["frames"].numpy())
