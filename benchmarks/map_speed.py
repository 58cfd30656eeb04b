"""Time and memory of frame-mAP against the number of detections, on synthetic boxes.

    python benchmarks/map_speed.py --most 10000000

93,000 boxes of 60 classes in 50,000 key frames are the ground truth. Detections are written to a csv and read again,
as `step-eval` reads them; reading and scoring are timed apart, each number of detections in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from step.evaluation.ava_csv import read_boxes
from step.evaluation.scoring import ScoringOptions, score

_TRUTH, _KEY_FRAMES, _CLASSES = 93_000, 50_000, 60
_SECONDS = 900  # of a video
_ROWS_AT_ONCE = 500_000


def write_csv(path: Path, count: int, *, seed: int, last: str) -> None:
    """Boxes in random key frames, some of which overlap."""
    state = np.random.RandomState(seed)
    with path.open("w") as file:
        for start in range(0, count, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, count - start)
            frame, label = state.randint(0, _KEY_FRAMES, rows), state.randint(1, _CLASSES + 1, rows)
            low = state.rand(rows, 2) * 0.4
            high = low + 0.3 + state.rand(rows, 2) * 0.3
            number = state.rand(rows) if last == "score" else start + np.arange(rows)
            columns = (frame // _SECONDS, 902 + frame % _SECONDS, *low.T, *high.T, label, number)
            for v, s, x1, y1, x2, y2, k, n in zip(*columns, strict=True):
                file.write(f"v{v},{s},{x1:.4f},{y1:.4f},{x2:.4f},{y2:.4f},{k},{n:.6f}\n")


def measure(truth: Path, results: Path) -> tuple[float, float, float, float]:
    """Seconds of reading and of scoring, largest memory in GB, and the mAP."""
    start_s = time.perf_counter()
    truth_table, result_table = read_boxes(truth, last="person"), read_boxes(results, last="score")
    read_s = time.perf_counter() - start_s
    start_s = time.perf_counter()
    scored = score(truth_table, result_table, names={}, options=ScoringOptions())
    score_s = time.perf_counter() - start_s
    return read_s, score_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, scored.mean_ap(0.5)


def main() -> None:
    """Prints the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10_000_000, help="largest number of detections")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(*measure(*arguments.measure))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("detections", "reading (s)", "scoring (s)", "memory (GB)", "mAP"):
        table.add_column(column, justify="right")
    console = Console()
    with tempfile.TemporaryDirectory() as folder, console.status("writing") as status:
        truth, results = Path(folder) / "gt.csv", Path(folder) / "r.csv"
        write_csv(truth, _TRUTH, seed=0, last="person")
        for count in (count for count in (10_000, _TRUTH, 1_000_000, 3_000_000, 10_000_000) if count <= arguments.most):
            status.update(f"{count:,} detections")
            write_csv(results, count, seed=1, last="score")
            command = [sys.executable, __file__, "--measure", str(truth), str(results)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            read_s, score_s, memory_gb, mean_ap = map(float, said)
            table.add_row(f"{count:,}", f"{read_s:.2f}", f"{score_s:.2f}", f"{memory_gb:.2f}", f"{mean_ap:.6f}")
    console.print(table)


if __name__ == "__main__":
    main()
