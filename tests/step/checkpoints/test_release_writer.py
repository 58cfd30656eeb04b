"""Checkpoints in the release's format, written by us."""

import json

import pytest
import torch
from helpers import TINY, shared_path

from step import StepConfig, StepDetector, StepError, load_checkpoint
from step.checkpoints.release_writer import release_content


def test_the_release_format_goes_both_ways(golden_checkpoint, tmp_path):
    """The golden weights, read, written as the release has them, and read again."""
    detector = load_checkpoint(golden_checkpoint)
    torch.save(release_content(detector), tmp_path / "again.pth")
    again = load_checkpoint(tmp_path / "again.pth")
    assert again.config == detector.config
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in detector.state_dict().items())
    expected = json.loads(shared_path("reference/checkpoint_keys.json").read_text())
    content = torch.load(tmp_path / "again.pth", weights_only=False)
    for net, shapes in expected.items():
        found = {key.removeprefix("module."): list(value.shape) for key, value in content[net].items()}
        assert sorted(found) == sorted(shapes)
        assert all(key.startswith("module.") == (not net.startswith("det_net")) for key in content[net])


@pytest.mark.parametrize(
    ("config", "said"), [(TINY, "width is 0.125"), (StepConfig(class_ids=(3, 5), num_classes=2), "60 or 80")]
)
def test_what_the_release_has_no_words_for(config, said):
    with torch.device("meta"):
        detector = StepDetector.from_config(config)
    with pytest.raises(StepError, match=said):
        release_content(detector)
