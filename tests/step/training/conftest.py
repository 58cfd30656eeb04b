"""What training's tests share; torchvision is made to load before a test file imports it."""

import pytest
import yaml
from helpers import run_command
from torchvision_on_cpu import load_torchvision
from training_helpers import detect_config

from step.data import stored_image
from step.data.toy.toy import generate, generate_frames

load_torchvision()


VIDEOS = {"train": 2, "val": 1}


@pytest.fixture(scope="session")
def data(make_once):
    """Toy AVA as extracted frames, small ones: reading them takes no time beside training."""

    def fill(folder):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(stored_image, "HEIGHT_PX", 60)
            generate_frames(folder / "toy", videos=VIDEOS)

    return make_once("training-frames", fill) / "toy"


@pytest.fixture
def data_of_videos(tmp_path):
    folder = tmp_path / "videos-of-toy"
    generate(folder, videos=VIDEOS)
    return folder


@pytest.fixture
def train(data, tmp_path, capsys):
    from step.training.cli import main

    def run(out="run", *words, kind="detect", **changes):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(detect_config(data, kind=kind, **changes)))
        words = (kind, tmp_path / "c.yaml", "-o", tmp_path / out, "--accelerator", "cpu", "--devices", "1", *words)
        return run_command(main, capsys, *words)

    return run
