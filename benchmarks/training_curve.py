"""Draws a run of step-train: losses and frame-mAP of every step against the updates.

python benchmarks/training_curve.py run/log.jsonl -o curve.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from step.training.objectives.losses import BOX_WEIGHT, NEIGHBOUR_WEIGHT

_SMOOTH = 25  # updates
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Two panels side by side."""
    losses = [line for line in lines if "loss" in line]
    scores = [line for line in lines if "mAP" in line]
    figure = Figure(figsize=(9, 3.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for step, color in zip(losses[0]["loss"], _COLORS, strict=False):
        parts = [line["loss"][step] for line in losses]
        total = [p["classification"] + BOX_WEIGHT * p["box"] + NEIGHBOUR_WEIGHT * p["neighbour"] for p in parts]
        width = min(_SMOOTH, len(total))
        smooth = np.convolve(total, np.ones(width) / width, mode="valid")
        left.plot([line["update"] for line in losses][width - 1 :], smooth, color=color, label=f"step {step}")
    for step, color in zip(scores[0]["mAP"], _COLORS, strict=False):
        points = [line["update"] for line in scores], [line["mAP"][step] for line in scores]
        right.plot(*points, color=color, marker="o", label=f"step {step}")
    left.set(xlabel="update", ylabel="loss", yscale="log", title="training loss")
    right.set(xlabel="update", ylabel="frame-mAP@0.5", ylim=(0, 1), title="evaluation")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Prints the last scores, and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.log.read_text().splitlines()]
    last = [line for line in lines if "mAP" in line][-1]
    means = ", ".join(f"step {step} {value:.4f}" for step, value in last["mAP"].items())
    print(f"after {last['update']} updates, {last['time_s'] / 60:.1f} minutes: {means}")
    draw(lines, arguments.output)


if __name__ == "__main__":
    main()
