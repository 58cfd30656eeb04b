"""step-train end to end on a few clips: files, losses, weights, failures."""

import json

import pytest
import torch
import yaml
from helpers import assert_one_error
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_helpers import CLASS_IDS, detect_config, weights_of

from step import load_checkpoint
from step.training.config import parse_config
from step.training.trainer import Trainer


def test_a_run(train, tmp_path):
    code, printed, error = train()
    assert code == 0, error
    run = tmp_path / "run"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["0000004.pth", "0000008.pth", "best.pth"]
    assert sorted(path.name for path in (run / "results").iterdir()) == ["results_step1.csv", "results_step2.csv"]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "loss" in line] == list(range(1, 9))
    assert set(lines[1]["loss"]) == {"1", "2"}
    assert 0 <= sum(line["waited_s"] for line in lines if "loss" in line) <= lines[-1]["time_s"]
    assert [line["update"] for line in lines if "mAP" in line] == [4, 8]
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"mAP/step2", "classification/step1", "rate", "AP/step1/c"} <= set(events.Tags()["scalars"])
    assert load_checkpoint(run / "model.pth").config.class_name(12) == "c"
    assert [image.step for image in events.Images("validation")] == [4, 8]
    assert parse_config(yaml.safe_load((run / "config.yaml").read_text()), "c").optimizer.batch == 2
    (_, first), (before_last, last) = ([line["mAP"][step] for step in ("1", "2")] for line in lines if "mAP" in line)
    assert printed.splitlines() == [
        f"last: epoch 2, frame-mAP@0.5 step 1 {before_last:.4f}, step 2 {last:.4f}: {run}/checkpoints/0000008.pth",
        f"best: epoch {1 if first >= last else 2}, frame-mAP@0.5 {max(first, last):.4f}: {run}/model.pth",
    ]
    assert error.splitlines()[0].startswith("epoch 1, update 4: frame-mAP@0.5 step 1 ")
    best, alone = weights_of(run / "checkpoints" / "best.pth"), weights_of(run / "model.pth")
    assert all(torch.equal(value, alone[key]) for key, value in best.items())
    assert (run / "model.pth").stat().st_size < (run / "checkpoints" / "best.pth").stat().st_size / 2
    content = torch.load(run / "checkpoints" / "best.pth", weights_only=True)
    assert content["training"]["versions"]["torch"] == torch.__version__
    assert json.loads(content["training"]["config"])["seed"] == 0
    assert_one_error(train(), "holds a run already; go on with --resume auto")


def test_losses_fall(train, tmp_path):
    changes = {
        "optimizer__epochs": 12,
        "optimizer__head_rate": 3e-3,
        "optimizer__context_rate": 1e-3,
        "evaluate_every": 12,
    }
    code, _, error = train(augmentation={"photometric": False, "crop": False, "flip": False, "erase": False}, **changes)
    assert code == 0, error
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    totals = [sum(sum(each.values()) for each in line["loss"].values()) for line in lines if "loss" in line]
    assert sum(totals[-8:]) < 0.7 * sum(totals[:8])


def test_averaged_weights(train, tmp_path):
    """The classes' ids, which are a buffer of integers, are not averaged."""
    code, _, error = train(optimizer__ema=0.9, optimizer__epochs=1)
    assert code == 0, error
    rows = (tmp_path / "run" / "results" / "results_step1.csv").read_text().splitlines()
    assert {int(row.split(",")[6]) for row in rows} <= set(CLASS_IDS)
    state = torch.load(tmp_path / "run" / "checkpoints" / "0000004.pth", weights_only=True)["training"]
    averaged, trained = weights_of(tmp_path / "run" / "model.pth"), state["weights"]
    key = "heads.0.global_cls.weight"
    assert not torch.equal(averaged[key], trained[key])
    assert torch.allclose(averaged[key], trained[key], atol=0.05)


@pytest.mark.parametrize("kind", ["detect", "classify"])
def test_mixed_precision(kind, train, tmp_path):
    """Half networks, float32 weights and boxes: nearly the losses of float32."""
    model = detect_config("")["model"] | ({} if kind == "detect" else {"chunks": [1], "chunk_frames": 9})
    losses = {}
    for precision in ("fp32", "bf16"):
        code, _, error = train(
            precision, kind=kind, model=model, precision=precision, optimizer__epochs=1, save_every=2
        )
        assert code == 0, error
        lines = [json.loads(line) for line in (tmp_path / precision / "log.jsonl").read_text().splitlines()]
        losses[precision] = [line["loss"]["1"] for line in lines if "loss" in line]
    first, half = losses["fp32"][0], losses["bf16"][0]
    assert half["classification"] == pytest.approx(first["classification"], rel=0.02)
    assert half["classification"] != first["classification"]
    assert half["box"] == pytest.approx(first["box"], rel=0.05)
    weights = {name: weights_of(tmp_path / "bf16" / "checkpoints" / name) for name in ("0000002.pth", "0000004.pth")}
    assert {value.dtype for value in weights["0000004.pth"].values() if value.is_floating_point()} == {torch.float32}
    # candidates are collected with half weights that have no gradients; training makes its own
    steps = range(len(model["chunks"]))
    for key in ("mixed_5b.branch_0.conv3d.weight", "global_cls.weight"):
        assert not any(torch.equal(*(w[f"heads.{step}.{key}"] for w in weights.values())) for step in steps)


def test_frozen_parts_stay(train, tmp_path):
    model = detect_config("")["model"] | {"freeze_backbone": True}
    code, _, error = train(model=model, optimizer__epochs=1)
    assert code == 0, error
    torch.manual_seed(0)
    weights = weights_of(tmp_path / "run" / "checkpoints" / "best.pth")
    norms = [key for key in weights if "running" in key]
    assert all(torch.equal(weights[key], torch.full_like(weights[key], float("var" in key))) for key in norms)
    other = train("more", optimizer__epochs=1, optimizer__head_rate=5e-3, model=model)
    assert other[0] == 0
    again = weights_of(tmp_path / "more" / "checkpoints" / "best.pth")
    assert all(torch.equal(again[key], weights[key]) for key in weights if key.startswith("backbone"))
    assert not all(torch.equal(again[key], weights[key]) for key in weights if key.startswith("heads"))


def test_beginning_from_weights(train, tmp_path):
    code, _, error = train("first", optimizer__epochs=1)
    assert code == 0, error
    path = tmp_path / "first" / "checkpoints" / "best.pth"
    model = detect_config("")["model"]
    zero = {
        "optimizer__head_rate": 0.0,
        "optimizer__context_rate": 0.0,
        "optimizer__backbone_rate": 0.0,
        "optimizer__epochs": 1,
    }
    assert train("second", model=model | {"checkpoint": str(path)}, **zero)[0] == 0
    first, second = weights_of(path), weights_of(tmp_path / "second" / "checkpoints" / "best.pth")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert train("third", model=model | {"classifier": str(path)}, **zero)[0] == 0
    third = weights_of(tmp_path / "third" / "checkpoints" / "best.pth")
    assert torch.equal(
        third["heads.1.mixed_5b.branch_0.conv3d.weight"], first["heads.0.mixed_5b.branch_0.conv3d.weight"]
    )
    assert torch.equal(
        third["backbone.mixed_3b.branch_0.conv3d.weight"], first["backbone.mixed_3b.branch_0.conv3d.weight"]
    )
    assert not torch.equal(third["heads.0.global_cls.weight"], first["heads.0.global_cls.weight"])
    done = train("fourth", model=model | {"checkpoint": str(path)}, data__classes=[12, 14], optimizer__epochs=1)
    assert_one_error(done, "has 7 classes, the run's data 2, or others; set data.classes")


def test_a_loss_that_is_no_number(train, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "step.training.objectives.losses.F.smooth_l1_loss", lambda deltas, *_a, **_k: deltas.sum() * float("nan")
    )
    assert_one_error(train(), r"the box loss of step 1 is nan at update 0; its clips are in .*not_finite.json")
    report = json.loads((tmp_path / "run" / "not_finite.json").read_text())
    assert (report["step"], report["loss"]) == (1, "box")
    assert len(report["clips"]) == 2


def test_weights_that_are_no_numbers(train, tmp_path, monkeypatch):
    """Candidates of the later steps are none either; the losses still say where it began."""
    real = Trainer.update

    def update(self, batches):
        with torch.no_grad():
            self.detector.heads[0].local_reg.weight.fill_(float("nan"))
        return real(self, batches)

    monkeypatch.setattr(Trainer, "update", update)
    assert_one_error(train(), r"the box loss of step 1 is nan at update 0; its clips are in .*not_finite.json")


def test_a_gradient_that_is_no_number(train, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *_a, **_k: torch.tensor(float("inf")))
    done = train(optimizer__clip_norm=1.0)
    assert_one_error(done, r"the gradient of all losses is inf at update 0; its clips are in .*not_finite.json")


def test_what_a_worker_cannot_load(train, data_of_videos, tmp_path):
    """One line, also from another process; and a missing video before training begins."""
    data_of_videos.rename(tmp_path / "broken")
    video = tmp_path / "broken" / "videos" / "train_001.mp4"
    video.write_bytes(b"no video")
    done = train("run", "-q", data__folder=str(tmp_path / "broken"), data__cache=False, data__workers=64)
    assert_one_error(done, r"^error: .*train_001.mp4[^\n]{,200}$")
    video.unlink()
    done = train("other", data__folder=str(tmp_path / "broken"))
    assert_one_error(
        done, "train.csv: 1 of its videos are not in .*videos, the first is train_001; see step-data extract"
    )


def test_too_little_memory(train, monkeypatch):
    def fail(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("step.training.objectives.detection.detection_losses", fail)
    assert_one_error(train(), "does not suffice for optimizer.batch 2; lower it and raise optimizer.accumulate")


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        ((), {"data__folder": "nowhere"}, "data.folder nowhere: no such folder"),
        ((), {"data__val": "test"}, "has no test.csv; write it with step-data prepare"),
        ((), {"data__classes": [1]}, "train.csv: has no box of the 1 classes"),
        ((), {"optimizer__batch": 99}, "8 training clips are fewer than one update takes"),
        (("--resume", "best"), {}, "--resume best: no such checkpoint"),
        (("--resume", "other.pth"), {}, "--resume other.pth: no such checkpoint"),
        (("--set", "optimizer.batch"), {}, "--set optimizer.batch: give KEY=VALUE"),
        ((), {"precision": "fp16"}, "precision fp16: a CPU trains in fp32 or bf16; set precision to bf16"),
        (("--set", "data.classes=[7,10"), {}, r"--set data.classes=\[7,10: '\[7,10' is no YAML value"),
        (("--set", "optimizer.bath=3"), {}, "unknown key 'optimizer.bath'; did you mean 'batch'"),
        ((), {"model": {"kinetics": "none.ckpt"}, "selection": {}}, "none.ckpt: no such file"),
    ],
)
def test_bad_input(words, changes, said, train):
    assert_one_error(train("run", *words, **changes), said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--accelerator", "tpus"), "'tpus' is not one of 'auto', 'cpu', 'cuda'"),
        (("--devices", "x"), "'x' is not a valid integer; give one, or auto"),
    ],
)
def test_what_is_typed_wrong(words, said, train):
    assert_one_error(train("run", *words), said, exit_code=2)
