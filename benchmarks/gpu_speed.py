"""What TensorRT engines take on this machine's GPU, beside what the card allows.

    python benchmarks/gpu_speed.py bundle --runs 100

The floor is the larger of two: all multiply-adds at the card's dense fp16 tensor peak (float32 accumulation), and every
convolution, pooling and matrix product reading its inputs and writing its output once at the card's memory bandwidth
(what is fused away moves less, what is not fused more). Without a GPU only the floors are printed.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from step_runtime.backends.base import Backend
from step_runtime.backends.tensorrt import TensorRTBackend
from step_runtime.benchmark.roofline.known_gpus import known_gpus
from step_runtime.benchmark.roofline.work import graph_work

from step import StepError
from step.bundles.manifest import read_bundle

_CLIPS_IN_FLIGHT = 2


def measure(backend: Backend, frames: np.ndarray, runs: int) -> list[float]:
    """Seconds a clip: the time between results while the next clip is already under way, after a warm-up."""
    for _ in range(3):
        backend.submit(frames).result()
    times_s: list[float] = []
    pending = [backend.submit(frames) for _ in range(_CLIPS_IN_FLIGHT - 1)]
    last_s = time.perf_counter()
    for _ in track(range(runs), f"{backend.name}, {backend.loop}"):
        pending.append(backend.submit(frames))
        pending.pop(0).result()
        now_s = time.perf_counter()
        times_s.append(now_s - last_s)
        last_s = now_s
    for call in pending:
        call.result()
    return times_s


def main() -> None:
    """Prints the floors of known cards, then what was measured here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    console = Console()
    manifest = read_bundle(arguments.bundle)
    work = graph_work(arguments.bundle / manifest.graphs["fused"].file)
    floors = Table(
        title=f"{work.multiply_adds / 1e9:.1f} G multiply-adds and {work.bytes / 1e9:.2f} GB a clip: ms at least"
    )
    for column in ("card", "compute", "memory"):
        floors.add_column(column, justify="left" if column == "card" else "right")
    for gpu in known_gpus():
        peaks = gpu.peaks()
        compute_ms, memory_ms = 1e3 * work.multiply_adds / peaks.rate("fp16"), 1e3 * work.bytes / peaks.bytes_per_s
        floors.add_row(gpu.name, f"{compute_ms:.1f}", f"{memory_ms:.1f}")
    console.print(floors)

    shape = manifest.preprocessing
    frames = np.random.RandomState(0).randint(
        0, 256, (1, shape.clip_frames, shape.image_size_px, shape.image_size_px, 3), np.uint8
    )
    table = Table(title="measured: ms a clip, two clips under way")
    for column in ("engines", "loop", "CUDA graph", "median", "p95", "device"):
        table.add_column(column)
    for library in manifest.engines:
        for loop in ("fused", "steps"):
            for cuda_graph in (True, False):
                try:
                    backend = TensorRTBackend.open(
                        arguments.bundle,
                        manifest,
                        library=library,
                        loop=loop,
                        num_steps=manifest.num_steps,
                        device="auto",
                        cuda_graph=cuda_graph,
                    )
                except StepError as error:
                    console.print(f"{library}, {loop}: not measured: {error}", markup=False)
                    break
                times_ms = [1e3 * value for value in measure(backend, frames, arguments.runs)]
                p95 = float(np.percentile(times_ms, 95))
                median = statistics.median(times_ms)
                table.add_row(
                    library, loop, "yes" if cuda_graph else "no", f"{median:.2f}", f"{p95:.2f}", backend.device
                )
                backend.close()
    if table.row_count:
        console.print(table)
    elif not manifest.engines:
        console.print(f"nothing measured: {arguments.bundle} has no engines; build them with step-build", markup=False)


if __name__ == "__main__":
    main()
