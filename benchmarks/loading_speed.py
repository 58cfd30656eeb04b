"""How many training clips a CPU core loads a second, and whether 16 of them keep an H100 busy, by calculation.

    python benchmarks/loading_speed.py ava --config ava_detect.yaml --clips 60

DATA is a folder as `step-train --data` takes it, with extracted frames. One thread reads, decodes, augments, resizes.
Colours are changed on the device that trains; the last row is what that would cost here.
An H100 cannot train on more clips a second than its peak rate of half products allows for a clip: forward of the whole
model, three times over (forward, and twice as much for the gradient).
"""

import argparse
import time
from pathlib import Path
from statistics import mean

import cv2
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from step.training.config import read_config
from step.training.samples.augmentation import Augmentation
from step.training.samples.batch import collate
from step.training.samples.training_data import open_data

FORWARD_MULTIPLY_ADDS = 447.3e9  # a clip of the full-size model (SPEC.md)
TRAINING_FORWARDS = 3  # forward, and gradients by weights and by inputs
H100_HALF_FLOPS = 989e12  # SXM, dense, data sheet
CORES = 16
_ALL, _COLOURS = "and augment", "colours alone"


def measure_s(data: Path, config_name: str, clips: int) -> dict[str, float]:
    """Seconds a clip: of reading alone, of reading and resizing, and of all that training does."""
    config = read_config(config_name, kind="detect", changes={"data.folder": str(data), "data.cache": False})
    opened = open_data(config)
    dataset = opened.train.dataset
    plain = Augmentation(
        image_size_px=config.model.image_size_px, clip_frames=config.step_config().clip_frames, options=None
    )
    stages = {
        "read and decode": dataset.__getitem__,
        "and resize": lambda index: plain(dataset[index]),
        _ALL: opened.train.__getitem__,
    }
    spent: dict[str, list[float]] = {name: [] for name in (*stages, _COLOURS)}
    for number in range(clips + 1):
        opened.train.epoch = number  # other augmentation each time
        index = number % len(dataset)
        for name, load in stages.items():
            began_s = time.perf_counter()
            load(index)
            spent[name].append(time.perf_counter() - began_s)
        batch = collate([opened.train[index]])
        began_s = time.perf_counter()
        batch.with_colours_changed()
        spent[_COLOURS].append(time.perf_counter() - began_s)
    return {name: mean(each[1:]) for name, each in spent.items()}  # the first one warms up


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", default="ava_detect.yaml")
    parser.add_argument("--clips", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("one core", "ms a clip", "clips/s", f"clips/s of {CORES} cores"):
        table.add_column(column, justify="right")
    found = measure_s(options.data, options.config, options.clips)
    for name, seconds in found.items():
        table.add_row(name, f"{seconds * 1e3:.0f}", f"{1 / seconds:.1f}", f"{CORES / seconds:.0f}")
    console = Console()
    console.print(table)
    most = H100_HALF_FLOPS / (2 * FORWARD_MULTIPLY_ADDS * TRAINING_FORWARDS)
    share = CORES / found[_ALL] / most
    console.print(f"H100 at its peak: {most:.0f} clips/s in training; {CORES} cores feed it up to {share:.0%} of that")


if __name__ == "__main__":
    main()
