"""What tests share besides fixtures."""

import argparse
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from step import StepConfig, StepDetector

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
REAL_VIDEOS = (
    "arm_wrestling_340x256_28fps.mp4",
    "eyebrows_320x240_25fps.avi",
    "chaplin_640x360_25fps.mp4",
    "juggle_1280x720_24fps.mp4",
    "carphone_176x144_2997fps.mp4",
)
TINY = StepConfig(width=0.125, image_size_px=64, fc_dim=16)
ONE_STEP = StepConfig(width=0.06, image_size_px=48, fc_dim=8, chunks=(1,))  # the least that has every kind of graph


_LOOK_EVERY_S = 0.05
MakeVideo = Callable[..., Path]
Done = tuple[int, str, str]


def shared_path(relative: str) -> Path:
    """Something in ../shared, or the test is skipped."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def tensorrt_without_gpu(*command: str | Path) -> list[str]:
    """A command in whose process `tensorrt` is NVIDIA's real Python API; see shared/tools. Skips where it is not."""
    env = ROOT / ".venv/tensorrt-without-gpu/env"
    if not env.is_file():
        pytest.skip(f"{env} is not set up: ../shared/tools/tensorrt-without-gpu {env.parent}")
    return ["bash", "-c", f'. "{env}" && exec "$@"', "bash", *map(str, command)]


def release_cfg(**changes: object) -> argparse.Namespace:
    """The cfg of a release checkpoint."""
    values: dict[str, object] = {
        "T": 3,
        "max_iter": 3,
        "fps": 12,
        "NUM_CHUNKS": {1: 1, 2: 1, 3: 3},
        "num_classes": 60,
        "anchor_mode": 1,
        "temporal_mode": "predict",
        "pool_mode": "align",
        "pool_size": 7,
        "fc_dim": 256,
        "no_context": False,
        "image_size": (400, 400),
        "scale_norm": 2,
        "conf_thresh": 0.01,
        "nms_thresh": 0.4,
        "topk": 300,
        "evaluate_topk": 300,
    }
    return argparse.Namespace(**(values | changes))


def make_detector(config: StepConfig, seed: int = 0) -> StepDetector:
    """Random weights whose box deltas are small and whose BatchNorm statistics are not the initial ones."""
    torch.manual_seed(seed)
    detector = StepDetector.from_config(config)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "_reg" in name:
                parameter.mul_(0.2)
        for name, value in detector.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
    return detector


def numbered_picture(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """A picture that spells its number (below 256) in two shades of grey that survive encoding and resizing."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 8 + 15 * (index % 16)
    pixels[:, width // 2 :] = 8 + 15 * (index // 16)
    return pixels


def shown_index(pixels: NDArray[np.uint8]) -> int:
    """The number of a `numbered_picture`."""
    quarter = pixels.shape[1] // 4
    low, high = (round((float(part.mean()) - 8) / 15) for part in (pixels[:, :quarter], pixels[:, -quarter:]))
    return 16 * high + low


def wait_while_running(process: subprocess.Popen[str], is_so: Callable[[], bool], *, limit_s: float = 60) -> None:
    """Waits until something is so that a process brings about; what it does can only be looked at again and again.

    Raises:
        AssertionError: the process ended, or the time was up, before.
    """
    for _ in range(int(limit_s / _LOOK_EVERY_S)):
        if is_so():
            return
        try:
            process.wait(_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            continue
        break
    assert is_so(), f"exit code {process.poll()}: not so within {limit_s} s"


def run_command(main: Callable[[list[str]], object], capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """A command of ours in this process: exit code, output, errors."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def assert_one_error(done: Done, said: str, *, exit_code: int = 1) -> None:
    """One line on standard error, which matches `said`; the exit code is 2 for what is typed wrong."""
    code, _, error = done
    assert code == exit_code, done
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert re.search(said, error), error
