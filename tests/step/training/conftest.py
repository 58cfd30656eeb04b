"""What training's tests share; torchvision is made to load before a test file imports it."""

import pytest
import yaml
from helpers import run_command
from torchvision_on_cpu import load_torchvision
from training_helpers import detect_config

load_torchvision()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from step.data.toy.toy import generate

    folder = tmp_path_factory.mktemp("toy") / "toy"
    generate(folder, videos={"train": 2, "val": 1})
    return folder


@pytest.fixture
def train(data, tmp_path, capsys):
    from step.training.cli import main

    def run(out="run", *words, kind="detect", **changes):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(detect_config(data, kind=kind, **changes)))
        words = (kind, tmp_path / "c.yaml", "-o", tmp_path / out, "--accelerator", "cpu", "--devices", "1", *words)
        return run_command(main, capsys, *words)

    return run
