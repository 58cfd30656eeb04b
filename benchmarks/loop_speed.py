"""PyTorch eager against ONNX Runtime (fused and step loops), same threads, paired runs.

    python benchmarks/loop_speed.py model.pth bundle --threads 2 --runs 5

Runs are interleaved (A B C A B C ...) after one warm-up each, so that a slow spell of the machine hits all alike.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from step_runtime import Detector


def main() -> None:
    """Prints median seconds a clip and the median of the paired ratios to PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    common = {"device": "cpu", "threads": arguments.threads}
    detectors = {
        "PyTorch eager": Detector.open(arguments.checkpoint, **common),
        "ONNX Runtime, fused": Detector.open(arguments.bundle, loop="fused", **common),
        "ONNX Runtime, steps": Detector.open(arguments.bundle, loop="steps", **common),
    }
    config = next(iter(detectors.values())).config
    shape = (1, config.clip_frames, config.image_size_px, config.image_size_px, 3)
    frames = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    times_s: dict[str, list[float]] = {name: [] for name in detectors}
    for run in track(range(arguments.runs + 1), "runs"):
        for name, detector in detectors.items():
            start_s = time.perf_counter()
            detector.detect(frames)
            if run:
                times_s[name].append(time.perf_counter() - start_s)
    baseline = times_s["PyTorch eager"]
    table = Table(title=f"{arguments.bundle}: one clip, {arguments.threads} threads, {arguments.runs} paired runs")
    for column in ("", "median s", "fastest s", "ratio to PyTorch"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in times_s.items():
        ratio = statistics.median(value / base for value, base in zip(values, baseline, strict=True))
        table.add_row(name, f"{statistics.median(values):.2f}", f"{min(values):.2f}", f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
