"""Going on with a run: to the bit, after being killed, elsewhere, from before its end."""

import json
from pathlib import Path

import pytest
import torch
from helpers import assert_one_error
from training_helpers import weights_of

from step.training import run_checkpoints as checkpoint
from step.training.trainer import Trainer


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer__ema": 0.9, "optimizer__accumulate": 2, "data__cache": False}, {"save_every": 3, "keep": 9}],
)
def test_a_resumed_run_equals_an_uninterrupted_one(changes, train, tmp_path, monkeypatch):
    """To the bit: order, augmentation, selection, dropout, optimizer, averages."""
    changes = {"optimizer__epochs": 2, "data__workers": 0, **changes}
    code, _, error = train("whole", **changes)
    assert code == 0, error
    real, count = Trainer.update, [0]

    def update(self, batches):
        count[0] += 1
        if count[0] == (6 if not changes.get("optimizer__accumulate") else 3):
            raise KeyboardInterrupt
        return real(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", update)
        assert train("broken", **changes)[0] == 130
    torch.rand(3)
    code, _, error = train("broken", "--resume", "auto", **changes)
    assert code == 0, error
    names = [path.name for path in checkpoint.numbered(tmp_path / "whole" / "checkpoints")]
    assert names == [path.name for path in checkpoint.numbered(tmp_path / "broken" / "checkpoints")]
    whole, resumed = (weights_of(tmp_path / out / "checkpoints" / names[-1]) for out in ("whole", "broken"))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    losses = [
        {
            line["update"]: line["loss"]
            for line in map(json.loads, (tmp_path / out / "log.jsonl").read_text().splitlines())
            if "loss" in line
        }
        for out in ("whole", "broken")
    ]
    assert losses[0] == losses[1]


def test_going_on_in_another_folder(train, tmp_path):
    """A finished run too: it is scored, and the best model is written there."""
    assert train(optimizer__epochs=1)[0] == 0
    last = tmp_path / "run" / "checkpoints" / "0000004.pth"
    code, printed, error = train("new", "--resume", str(last), optimizer__epochs=1)
    assert code == 0, error
    assert printed.startswith("last: epoch 1, frame-mAP@0.5 step 1 ")
    assert f": {last}\nbest: epoch 1, " in printed
    one, other = (weights_of(tmp_path / out / "model.pth") for out in ("run", "new"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_going_back(train, tmp_path):
    """What came after the checkpoint that a run goes on from is forgotten; another --resume auto does not find it."""
    assert train(optimizer__epochs=3, keep=9)[0] == 0
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoint.forget_after(checkpoints, 4)
    assert {path.name for path in checkpoints.iterdir()} - {"best.pth"} == {"0000004.pth"}
    code, _, error = train("run", "--resume", "auto", optimizer__epochs=3, keep=9)
    assert code == 0, error
    assert [path.name for path in checkpoint.numbered(checkpoints)] == ["0000004.pth", "0000008.pth", "0000012.pth"]
    assert (checkpoints / "best.pth").is_file()


def test_a_log_has_every_update_once(train, tmp_path):
    """Also where what was there before a resumed checkpoint went on beyond it, or was cut off."""
    assert train(optimizer__epochs=1, save_every=2)[0] == 0
    log, saved = tmp_path / "run" / "log.jsonl", tmp_path / "run" / "checkpoints" / "0000002.pth"
    with log.open("a") as file:
        file.write('5\n{"update": null}\n{"update": 5, "lo')
    assert train("run", "--resume", str(saved), optimizer__epochs=1, save_every=2)[0] == 0
    updates = [json.loads(line).get("update") for line in log.read_text().splitlines() if "loss" in line]
    assert updates == [1, 2, 3, 4]
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    assert train(optimizer__epochs=1)[0] == 0
    assert len([line for line in log.read_text().splitlines() if "versions" in line]) == 1


def test_killed_while_writing_a_checkpoint(train, tmp_path, monkeypatch):
    """The one before is whole, and the run goes on from it."""
    real, count = torch.save, [0]

    def save(content, path, *args):
        count[0] += 1
        if count[0] == 3:
            Path(path).write_bytes(b"half")
            raise KeyboardInterrupt
        real(content, path, *args)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", save)
        assert train()[0] == 130
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert "0000004.pth" in names
    assert not [name for name in names if name.startswith(".")]
    code, _, error = train("run", "--resume", "auto")
    assert code == 0, error
    assert checkpoint.numbered(tmp_path / "run" / "checkpoints")[-1].name == "0000008.pth"


def test_resuming_what_is_not_this_run(train, tmp_path, tiny_checkpoint):
    assert train(optimizer__epochs=1)[0] == 0
    done = train("run", "--resume", "auto", optimizer__epochs=1, optimizer__batch=4, seed=3)
    assert_one_error(done, r"is of another config: optimizer.batch \(was 2, is 4\), seed \(was 0, is 3\); resume with")
    assert_one_error(train("run", "--resume", str(tiny_checkpoint)), "holds a model but no training to go on with")
    path = tmp_path / "run" / "checkpoints" / "0000004.pth"
    content = torch.load(path, weights_only=True)
    content["training"]["world"] = 4
    torch.save(content, path)
    done = train("run", "--resume", "auto", optimizer__epochs=1)
    assert_one_error(done, "is of a run of 4 processes, this one has 1; resume with as many")
    content["training"]["world"] = 1
    next(value for value in content["training"]["weights"].values() if value.is_floating_point()).fill_(float("nan"))
    torch.save(content, path)
    done = train("run", "--resume", "auto", optimizer__epochs=1)
    assert_one_error(done, "0000004.pth: .* holds values that are not finite; train it again")
