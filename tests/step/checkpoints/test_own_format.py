import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, make_detector, release_cfg

from step import StepConfig, StepError, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def release_content(golden):
    """One head is enough to test reading; sharing the tensors keeps this light."""
    weights = golden.weights(0)
    content: dict[str, object] = {
        net: {("" if net.startswith("det") else "module.") + key: torch.from_numpy(v) for key, v in state.items()}
        for net, state in weights.items()
        if net in ("base_net", "context_net", "det_net0")
    }
    return content | {"cfg": release_cfg(max_iter=1, NUM_CHUNKS={1: 1})}


def _saved(content, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    return path


def test_release_format(release_content, tmp_path):
    training = {"optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "val_mAP": np.float64(0.2), "epochs": 3}
    detector = load_checkpoint(_saved(release_content | training, tmp_path))
    assert detector.config == StepConfig(chunks=(1,))
    assert not detector.training
    found = detector.heads[0].global_cls.weight
    assert torch.equal(found, release_content["det_net0"]["global_cls.weight"].flatten(1))


def test_old_release_files_are_not_zip_archives(release_content, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(release_content, path, _use_new_zipfile_serialization=False)
    assert load_checkpoint(path).config.num_steps == 1


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        ({"image_size": 400}, {}),
        ({"image_size": "400,400"}, {}),
        ({"temporal_mode": "none"}, {"temporal_mode": "mean"}),
        ({"temporal_mode": "extrapolate"}, {"temporal_mode": "extrapolate"}),
        ({"pool_mode": "pool"}, {"pool_mode": "pool"}),
        ({"anchor_mode": 2}, {"anchor_mode": 2}),
    ],
)
def test_release_cfg(cfg, expected, release_content, tmp_path):
    content = release_content | {"cfg": release_cfg(max_iter=1, NUM_CHUNKS={1: 1}, **cfg)}
    assert load_checkpoint(_saved(content, tmp_path)).config == StepConfig(chunks=(1,), **expected)


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        ({"scale_norm": 1}, "scale_norm is 1"),
        ({"image_size": (300, 400)}, "only square"),
        ({"max_iter": 2}, "max_iter is 2 but the file holds 1"),
        ({"NUM_CHUNKS": {2: 1}}, "NUM_CHUNKS"),
        ({"pool_mode": "crop"}, "pool_mode is 'crop'"),
        ({"fc_dim": "many"}, "fc_dim is 'many'"),
        ({"NUM_CHUNKS": "x"}, "NUM_CHUNKS is 'x'"),
        ({"NUM_CHUNKS": {1: None}}, "NUM_CHUNKS is"),
        ({"image_size": float("inf")}, "image_size is inf"),
        ({"pool_mode": ["align"]}, "pool_mode is"),
    ],
)
def test_release_cfg_that_is_not_known(cfg, said, release_content, tmp_path):
    values = {"max_iter": 1, "NUM_CHUNKS": {1: 1}} | cfg
    with pytest.raises(StepError, match=said):
        load_checkpoint(_saved(release_content | {"cfg": release_cfg(**values)}, tmp_path))


def test_round_trip(tmp_path):
    detector = make_detector(TINY)
    save_checkpoint(detector, tmp_path / "tiny.pth")
    loaded = load_checkpoint(tmp_path / "tiny.pth")
    assert loaded.config == TINY
    for key, value in detector.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key


def test_saving_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "tiny.pth"
    path.write_bytes(b"old")
    save_checkpoint(make_detector(TINY), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.pth"]
    load_checkpoint(path)


def test_wrong_keys_are_named(release_content, tmp_path):
    head = dict(release_content["det_net0"])
    del head["local_reg.weight"]
    head["surprise.weight"] = torch.zeros(1)
    head["downsample.bias"] = torch.zeros(7)
    with pytest.raises(StepError) as caught:
        load_checkpoint(_saved(release_content | {"det_net0": head}, tmp_path))
    message = str(caught.value)
    assert "1 missing: heads.0.local_reg.weight" in message
    assert "1 unexpected: heads.0.surprise.weight" in message
    assert "heads.0.downsample.bias ([7], expected [256])" in message
    assert "\n" not in message


class _RunsCode:
    def __reduce__(self):
        return os.system, ("touch /tmp/step-trt-was-here",)


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_that_would_run_code_is_refused(archive, tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"base_net": _RunsCode()}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(StepError, match=r"refused: the file wants to load (posix|nt)\.system"):
        load_checkpoint(path)


def test_a_plain_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"base_net": _RunsCode()}))
    with pytest.raises(StepError, match="refused|not a checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_truncated_files(kept, tmp_path):
    path = tmp_path / "tiny.pth"
    save_checkpoint(make_detector(TINY), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(StepError, match="not a checkpoint or damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 1000, os.urandom(1000), b"PK\x03\x04broken"])
def test_foreign_files(content, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(StepError, match="not a checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, torch.zeros(3)])
def test_files_that_hold_something_else(content, tmp_path):
    with pytest.raises(StepError, match="not a (STEP )?checkpoint"):
        load_checkpoint(_saved(content, tmp_path))


def test_missing_file(tmp_path):
    with pytest.raises(StepError, match="no such file"):
        load_checkpoint(tmp_path / "none.pth")


def test_newer_format(tmp_path):
    content = {"format": "step-trt", "version": 99, "config": {}, "state_dict": {}}
    with pytest.raises(StepError, match="version 99"):
        load_checkpoint(_saved(content, tmp_path))


def test_nowhere_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StepError, match="cannot write"):
        save_checkpoint(make_detector(TINY), tmp_path / "file" / "model.pth")


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.pop("state_dict"),
        lambda content: content.pop("config"),
        lambda content: content.update(state_dict=[1]),
        lambda content: content["config"].update(fc_dim=None),
        lambda content: content["config"].update(image_size_px="wide"),
        lambda content: content["config"].update(image_size_px=64.5),
        lambda content: content["config"].update(chunks=3),
        lambda content: content["config"].update(fc_dim=10**12),
        lambda content: content["state_dict"].update({7: torch.zeros(1)}),
        lambda content: content["state_dict"].update({"heads.0.local_reg.bias": torch.zeros(4).to_sparse()}),
        lambda content: content["state_dict"].update({"heads.0.local_reg.bias": torch.zeros(4, dtype=torch.int8)}),
    ],
)
def test_damage_inside_our_format_is_one_line(edit, tmp_path):
    path = tmp_path / "tiny.pth"
    save_checkpoint(make_detector(TINY), path)
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)
    with pytest.raises(StepError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [10_000])
def test_full_disk(limit, tmp_path):
    """A limit on file size stands for a full disk."""
    code = """
import resource, signal, sys
from helpers import TINY, make_detector
from step import StepError, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
detector = make_detector(TINY)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    save_checkpoint(detector, sys.argv[1])
except StepError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", code, str(tmp_path / "model.pth"), str(limit)]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True, timeout=120)
    assert "cannot write" in done.stdout
    assert not list(tmp_path.iterdir())
