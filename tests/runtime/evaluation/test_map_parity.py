"""mAP parity on a data set whose ground truth is what PyTorch finds: the right model has a high mAP, others do not."""

import shutil

import numpy as np
import pytest
import torch
from helpers import TINY, assert_one_error, make_detector, run_command
from step_runtime.backends.torch import TorchBackend
from step_runtime.evaluation.cli import main as step_eval
from step_runtime.evaluation.map_parity import (
    MapParityRow,
    MapTolerance,
    ParityConfiguration,
    compare_map,
    find_configurations,
    matched_share,
)

from step import StepError, save_checkpoint
from step.bundles.manifest import DEFAULT_THRESHOLDS, read_bundle, write_manifest
from step.data.dataset_folder import DatasetFolder
from step.evaluation.box_table import BoxTable


@pytest.fixture
def checkpoint(tiny_bundle):
    """The weights of the model whose results depend on the frames."""
    return tiny_bundle.parent / "model.pth"


@pytest.fixture
def data(tiny_data):
    return tiny_data


def _words(bundle, checkpoint, data, *more):
    return ["parity", bundle, "--checkpoint", checkpoint, "--data", data, *more]


def test_every_configuration_gives_pytorchs_map(data, tiny_bundle, checkpoint, capsys):
    code, printed, error = run_command(step_eval, capsys, *_words(tiny_bundle, checkpoint, data))
    assert code == 0, printed + error
    rows = [line.split() for line in printed.splitlines() if line.startswith((" torch", " onnxruntime"))]
    assert [row[0] for row in rows] == ["torch", "onnxruntime", "onnxruntime"]
    assert all(row[-1] == "ok" for row in rows)
    assert float(rows[0][4]) > 0.5  # after the last step, whose detections are the ground truth
    assert rows[2][3:6] == rows[0][2:5]


def test_another_model_does_not(data, tiny_bundle, tmp_path, capsys):
    save_checkpoint(make_detector(TINY, seed=5), tmp_path / "other.pth")
    done = run_command(step_eval, capsys, *_words(tiny_bundle, tmp_path / "other.pth", data, "--loops", "fused"))
    assert done[0] == 1
    assert "1 of 2 configurations do not give PyTorch's mAP: onnxruntime fused fp32" in done[2]


def test_a_backend_that_is_not_here(data, tiny_bundle, checkpoint, monkeypatch, capsys):
    monkeypatch.setattr("step_runtime.backends.gpus.cuda_driver_is_present", lambda: False)
    words = _words(tiny_bundle, checkpoint, data, "--backends", "onnxruntime,tensorrt", "--loops", "fused")
    code, printed, error = run_command(step_eval, capsys, *words)
    assert code == 1
    assert "tensorrt fused fp32: `backend` tensorrt: this machine has no NVIDIA driver" in printed
    assert "1 of 3 configurations do not give PyTorch's mAP: tensorrt fused fp32" in error


def test_steps_and_precisions(data, tiny_bundle, checkpoint):
    configurations = find_configurations(
        [tiny_bundle], checkpoint, backends=["torch", "onnxruntime"], loops=["steps"], precisions=["fp32"]
    )
    assert [(configuration.backend, configuration.loop) for configuration in configurations] == [
        ("torch", None),
        ("onnxruntime", "steps"),
    ]
    seen = []
    rows = compare_map(
        configurations,
        DatasetFolder.open(data, "val"),
        steps=[1, 3],
        thresholds=DEFAULT_THRESHOLDS,
        progress=lambda configuration, done, total: seen.append((configuration.backend, done, total)),
    )
    assert [sorted(row.mean_ap) for row in rows] == [[1, 3], [1, 3]]
    assert seen == [("torch", 1, 2), ("torch", 2, 2), ("onnxruntime", 1, 2), ("onnxruntime", 2, 2)]  # one pass each
    assert rows[1].matched == 1
    assert rows[1].latency_ms > 0


def test_tolerances():
    """Those of what was computed: a configuration of float32 networks whose products were TF32's is held to half's."""
    configuration = ParityConfiguration(model=None, backend="onnxruntime", loop="fused", precision="fp32")
    tolerances = {"fp32": MapTolerance(0.001, 0.02), "fp16": MapTolerance(0.005, 0.02)}

    def passed(**values):
        return MapParityRow(configuration=configuration, **values).passed(tolerances)

    assert passed(precision="fp16", worst_mean=0.004, worst_class=0.02)
    assert not passed(precision="fp32", worst_mean=0.004, worst_class=0.02)
    assert not passed(precision="fp16", worst_mean=0.006)
    assert not passed(precision="fp16", worst_class=0.03)
    assert not passed(precision="fp16", problem="not here")


def _with_score_threshold(bundle, copy, score_threshold):
    """A bundle that states another threshold than its graphs have."""
    shutil.copytree(bundle, copy)
    manifest = read_bundle(copy)
    thresholds = manifest.thresholds.model_copy(update={"score_threshold": score_threshold})
    write_manifest(manifest.model_copy(update={"thresholds": thresholds}), copy)
    return copy


def test_pytorch_detects_with_the_bundles_thresholds(data, tiny_bundle, checkpoint, tmp_path, capsys):
    bundle = _with_score_threshold(tiny_bundle, tmp_path / "bundle", 0.999)
    done = run_command(step_eval, capsys, *_words(bundle, checkpoint, data, "--loops", "fused"))
    assert_one_error(done, "1 of 2 configurations do not give PyTorch's mAP: onnxruntime fused fp32")


def test_bundles_of_different_thresholds(data, tiny_bundle, checkpoint, tmp_path, capsys):
    other = _with_score_threshold(tiny_bundle, tmp_path / "other", 0.5)
    done = run_command(step_eval, capsys, "parity", other, *_words(tiny_bundle, checkpoint, data)[1:])
    assert_one_error(done, r"bundle: its thresholds \(score_threshold 0.01, .*\) are not those of .*other \(.* 0.5, ")


def test_options_before_the_subcommand(data, tiny_bundle, checkpoint, capsys):
    done = run_command(step_eval, capsys, "--device", "cpu", *_words(tiny_bundle, checkpoint, data))
    assert_one_error(done, "--device stands before parity, which does not see it; give it after", exit_code=2)


def test_the_reference_is_float32(tiny_bundle, checkpoint, data, monkeypatch):
    """On a GPU PyTorch's convolutions would be TF32's, which is as far from float32 as what is compared with it."""
    seen: list[tuple[bool, bool]] = []
    real = TorchBackend.submit

    def submit(self, frames):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return real(self, frames)

    monkeypatch.setattr(TorchBackend, "submit", submit)
    before = torch.backends.cudnn.allow_tf32
    configuration = ParityConfiguration(model=checkpoint, backend="torch", loop=None, precision="fp32")
    (row,) = compare_map([configuration], DatasetFolder.open(data, "val"), steps=[1], thresholds=DEFAULT_THRESHOLDS)
    assert set(seen) == {(False, False)}
    assert torch.backends.cudnn.allow_tf32 == before
    assert row.precision == "fp32"


def _table(rows):
    boxes = np.array([row[:4] for row in rows], float).reshape(-1, 4)
    count = len(rows)
    return BoxTable(
        path=None,
        videos=("v",) if count else (),
        video=np.zeros(count, np.int32),
        second=np.ones(count),
        boxes_xyxy=boxes,
        label=np.array([row[4] for row in rows], np.int32),
        last=np.array([row[5] for row in rows], float),
        lines=np.arange(1, count + 1),
    )


def test_matched_detections():
    expected = _table(
        [(0, 0, 0.5, 0.5, 1, 0.9), (0, 0, 0.5, 0.5, 2, 0.8), (0.5, 0.5, 1, 1, 1, 0.7), (0, 0.5, 1, 1, 3, 0.6)]
    )
    found = _table([(0, 0, 0.5, 0.5, 1, 0.9004), (0, 0, 0.5, 0.5, 2, 0.7), (0.5, 0.5, 0.8, 1, 1, 0.7)])
    assert matched_share(found, expected, score_tolerance=0.001) == 0.25
    assert matched_share(expected, expected, score_tolerance=0) == 1
    assert matched_share(_table([]), expected, score_tolerance=0.001) == 0
    assert matched_share(expected, _table([]), score_tolerance=0.001) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tolerance", "-1"], "--tolerance is -1; it must be a number of at least 0"),
        (["--class-tolerance", "nan"], "--class-tolerance is nan; it must be a number of at least 0"),
        (["--precisions", "fp32,fp16"], "--precisions asks for fp16, which no bundle has; export one"),
        (["--steps", "4"], "--steps has 4; the bundles have steps 1 to 3"),
        (["--steps", "1,2"], "--steps is 1,2; a fused graph gives step 3 only: add it, or give --loops steps"),
        (["--split", "test"], "has no test.csv"),
    ],
)
def test_bad_options(more, said, data, tiny_bundle, checkpoint, capsys):
    assert_one_error(run_command(step_eval, capsys, *_words(tiny_bundle, checkpoint, data, *more)), said)


def test_two_bundles_of_one_precision(tiny_bundle, checkpoint, tmp_path):
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    with pytest.raises(StepError, match="have the same precision; give one of each"):
        find_configurations(
            [tiny_bundle, other], checkpoint, backends=["onnxruntime"], loops=["fused"], precisions=["fp32"]
        )
