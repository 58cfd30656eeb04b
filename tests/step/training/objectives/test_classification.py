"""Classification pre-training: its boxes, its loss, a run that a detector begins from."""

import csv

import numpy as np
import pytest
import torch
import yaml
from helpers import assert_one_error, run_command

from step import StepConfig, StepDetector
from step.data.toy.toy import generate
from step.training.cli import main
from step.training.objectives.classification import ClassificationTask, classification_tubes
from step.training.objectives.selection import box_iou
from step.training.samples.batch import Batch, People

SIZE = 100
CONFIG = StepConfig(
    image_size_px=48, width=0.06, fc_dim=8, chunk_frames=9, chunks=(1,), num_classes=3, class_ids=(10, 12, 14)
)


def _batch(people, size=SIZE):
    clips = []
    for boxes in people:
        count = len(boxes)
        labels = torch.zeros(count, 3)
        labels[:, 1] = 1
        clips.append(
            People(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                labels,
                torch.zeros(count, 2, 4),
                torch.zeros(count, 2, dtype=torch.bool),
            )
        )
    frames = torch.randint(0, 256, (len(people), 36, size, size, 3), dtype=torch.uint8)
    return Batch(frames, clips, [("v", second) for second in range(len(people))], [])


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_near_the_person_or_near_nobody(seed):
    people = [[[10, 10, 40, 90], [50, 20, 80, 95]], [[5, 5, 30, 60]], []]
    boxes, labels, valid = classification_tubes(_batch(people), image_size_px=SIZE, seed=str(seed))
    assert boxes.shape == (3, 8, 4)
    assert not valid[2].any()
    for clip, there in enumerate(people[:2]):
        count = len(there)
        mine = boxes[clip][valid[clip]]
        assert count < len(mine) <= 4 * count
        assert (mine >= 0).all()
        assert (mine <= SIZE).all()
        iou = box_iou(mine, torch.tensor(there, dtype=torch.float32))
        for person in range(count):
            assert iou[person, person] > 0.75
            assert (np.delete(iou[person].numpy(), person) < 0.2).all()
        assert (iou[count:] < 0.2).all()
        assert labels[clip, :count, 1].all()
        assert not labels[clip, count:].any()
    again = classification_tubes(_batch(people), image_size_px=SIZE, seed=str(seed))
    assert torch.equal(boxes, again[0])
    assert not torch.equal(boxes, classification_tubes(_batch(people), image_size_px=SIZE, seed="other")[0])


def test_people_who_stand_in_each_other():
    """No box is near one and far from the other: their own boxes are taken."""
    people = [[[10, 10, 60, 90], [12, 10, 62, 90]]]
    boxes, _, _ = classification_tubes(_batch(people), image_size_px=SIZE, seed="0")
    assert boxes[0, :2].tolist() == people[0]


def test_the_loss_is_over_positives_and_background():
    torch.manual_seed(0)
    detector = StepDetector.from_config(CONFIG)
    seen = []
    task = ClassificationTask(detector=detector, seed=0, mean_counts=lambda counts: seen.append(counts) or counts)
    (losses,) = task(_batch([[[10, 10, 30, 40]], [[5, 5, 20, 40]]], size=48), 0)
    assert seen[0][0] >= 2 * 2 * 3
    assert seen[0][1:].tolist() == [0, 0]
    losses.total.backward()
    trained = {name for name, p in detector.named_parameters() if p.grad is not None}
    assert "heads.0.global_cls.weight" in trained
    assert "backbone.conv3d_1a_7x7.conv3d.weight" in trained
    frozen = {name for name, p in detector.named_parameters() if not p.requires_grad}
    assert {name.split(".")[2] for name in frozen} == {
        "local_conv", "downsample2", "local_reg", "neighbor_reg1", "neighbor_reg2"
    }  # fmt: skip


def test_a_run_and_a_detector_that_begins_from_it(tmp_path, capsys):
    generate(tmp_path / "toy", videos={"train": 1, "val": 1})
    values = {
        "kind": "classify",
        "data": {"folder": str(tmp_path / "toy"), "classes": [7, 10, 12, 14, 65, 69, 70], "cache": True},
        "model": {"image_size_px": 48, "width": 0.06, "fc_dim": 8, "chunk_frames": 9, "chunks": [1]},
        "optimizer": {"batch": 2, "epochs": 2, "warmup": 1},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    words = [tmp_path / "c.yaml", "--accelerator", "cpu", "--devices", "1", "-o"]
    code, printed, error = run_command(main, capsys, "classify", *words, tmp_path / "run")
    assert code == 0, error
    assert "last: epoch 2, frame-mAP@0.5 step 1 " in printed
    rows = list(csv.reader((tmp_path / "run" / "results" / "results_step1.csv").read_text().splitlines()))
    truth = list(csv.reader((tmp_path / "toy" / "val.csv").read_text().splitlines()))
    assert len(rows) == 7 * len({tuple(row[:6]) for row in truth})
    values |= {
        "kind": "detect",
        "model": {
            "image_size_px": 48, "width": 0.06, "fc_dim": 8, "chunks": [1],
            "classifier": str(tmp_path / "run" / "checkpoints" / "best.pth"),
        },
        "selection": {"positive_iou": [0.2], "regression_iou": [0.2]},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    code, _, error = run_command(main, capsys, "detect", *words, tmp_path / "detector")
    assert code == 0, error
    done = run_command(main, capsys, "classify", *words, tmp_path / "other")
    assert_one_error(done, "is for step-train detect, not for step-train classify")
    values |= {"kind": "classify", "model": {"chunks": [1, 1]}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    done = run_command(main, capsys, "classify", *words, tmp_path / "other")
    assert_one_error(done, r"model.chunks must be \[1\] to classify")
