"""Modules that an fp16 export keeps in float32."""

import pytest
import torch
from helpers import ONE_STEP, make_detector
from step_export.bundle_writer import ExportSettings, export_bundle

from step import StepError, save_checkpoint
from step.models.float32_island import Float32Island


def _dtypes(module):
    return {parameter.dtype for parameter in module.parameters()}


@pytest.mark.parametrize(
    ("pattern", "islands"),
    [
        ("backbone.mixed_4b*", {"backbone.mixed_4b"}),
        ("backbone.mixed_4[bc].branch_1.0", {"backbone.mixed_4b.branch_1.0", "backbone.mixed_4c.branch_1.0"}),
        ("backbone.conv3d_1a_7x7.conv3d", {"backbone.conv3d_1a_7x7.conv3d"}),
        ("heads.0", {"heads.0"}),
        ("*", {"backbone", "context", "heads.0"}),
    ],
)
def test_matching_modules_stay_float32(pattern, islands):
    reference, detector = make_detector(ONE_STEP), make_detector(ONE_STEP)
    detector.half_networks([pattern])
    found = {name: module for name, module in detector.named_modules() if isinstance(module, Float32Island)}
    assert set(found) == islands
    for name, module in found.items():
        assert _dtypes(module) == {torch.float32}
        for kept, wanted in zip(module.parameters(), reference.get_submodule(name).parameters(), strict=True):
            assert torch.equal(kept, wanted)  # and were not half in between
    outside = [value for name, value in detector.named_parameters() if "kept_float32" not in name]
    assert {value.dtype for value in outside} <= {torch.float16}
    frames = torch.randint(0, 256, (1, 12, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        clip = detector.extract(frames)
        assert clip.features.dtype == clip.context.dtype == torch.float16
        (output,), (expected,) = detector(frames), reference(frames)
    assert (output.scores - expected.scores).abs().max() <= 5e-3
    assert (output.boxes_px - expected.boxes_px).abs().max() <= 1.0


def test_a_pattern_that_matches_nothing():
    with pytest.raises(StepError, match="`keep_fp32` 'backbone.mixed_5b' matches no module; near it are .*mixed_3b"):
        make_detector(ONE_STEP).half_networks(["backbone.mixed_5b"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ExportSettings(keep_fp32=("backbone",)), "`keep_fp32` 'backbone' needs `precision` fp16"),
        (ExportSettings(keep_fp32=("heads.7*",), precision="fp16"), "'heads.7\\*' matches no module"),
    ],
)
def test_bad_settings_write_nothing(settings, said, tmp_path):
    save_checkpoint(make_detector(ONE_STEP), tmp_path / "model.pth")
    with pytest.raises(StepError, match=said):
        export_bundle(tmp_path / "model.pth", tmp_path / "bundle", settings)
    assert not (tmp_path / "bundle").exists()
