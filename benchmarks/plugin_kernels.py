"""What the plugins' kernels take on this machine's GPU, beside the time that their memory traffic needs.

    python benchmarks/plugin_kernels.py

Every tactic of both kernels at the released network's sizes, and the matrix products that they replace. Without a GPU
only the traffic is printed, and its time on some cards.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from step_plugins import class_nms, roi_align, torch_ops

from step.ops.class_nms import matrix_nms
from step.ops.roi_align import matrix_roi_align

GB_PER_S = {"A10": 600, "L4": 300, "4090": 1008, "H100": 3350, "H200": 4800}
TUBES, CLASSES, CHANNELS, CELLS, POOL_SIZE = 34, 60, 832, 25, 7
_WARM_UP_RUNS = 20


def traffic(batch: int) -> dict[str, dict[str, float]]:
    """Bytes of each operator at the released network's sizes, by way of running it."""
    rows = {}
    for half in (True, False):
        for frames in (3, 9):
            rows[f"align {'fp16' if half else 'fp32'} T{frames}"] = roi_align.traffic_bytes(
                batch=batch,
                tubes=TUBES,
                frames=frames,
                channels=CHANNELS,
                height=CELLS,
                width=CELLS,
                pool_size=POOL_SIZE,
                half=half,
            )
    rows["nms"] = class_nms.traffic_bytes(batch=batch, boxes=TUBES, classes=CLASSES)
    return rows


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("operator", "way"):
        table.add_column(column, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def floors(batch: int) -> Table:
    """The traffic, and the time that it takes at the full speed of some cards' memory."""
    table = _table(f"Calculated, not measured: {batch} clip(s); us at each card's bandwidth", ("MB", *GB_PER_S))
    for operator, ways in traffic(batch).items():
        for way, count in ways.items():
            times = (f"{count / speed / 1e3:.2f}" for speed in GB_PER_S.values())
            table.add_row(operator, way, f"{count / 1e6:.3g}", *times)
    return table


def measure(batch: int, runs: int) -> Table:
    """Median times on the GPU at hand, with old data in its caches; GB/s of the kernel's calculated traffic."""
    table = _table(f"{torch.cuda.get_device_name()}: {batch} clip(s), {runs} runs", ("median us", "GB/s"))
    generator = torch.Generator("cuda").manual_seed(0)
    for half in (True, False):
        for frames in (3, 9):
            name = f"align {'fp16' if half else 'fp32'} T{frames}"
            shape = (batch, frames, CELLS, CELLS, CHANNELS)
            memory = torch.randn(shape, device="cuda", generator=generator).to(torch.float16 if half else torch.float32)
            features = memory.permute(0, 1, 4, 2, 3)  # channels last, as the backbone gives them
            low = 250 * torch.rand(batch, TUBES, frames, 2, device="cuda", generator=generator)
            tubes = torch.cat((low, low + 130), -1)
            count = traffic(batch)[name]["kernel"]
            for tactic in roi_align.TACTICS:
                _row(table, name, f"kernel, tactic {tactic}", count, runs, _with_tactic(tactic, features, tubes))
            _row(table, name, "matrix products", count, runs, lambda f=features, t=tubes: matrix_roi_align(f, t, 7))
    low = 250 * torch.rand(batch, TUBES, 2, device="cuda", generator=generator)
    boxes = torch.cat((low, low + 130), -1)
    scores = torch.rand(batch, TUBES, CLASSES, device="cuda", generator=generator)
    count = traffic(batch)["nms"]["kernel"]
    _row(table, "nms", "kernel", count, runs, lambda: torch_ops.class_nms_cuda(boxes, scores, 0.01, 0.4))
    _row(table, "nms", "matrix products", count, runs, lambda: matrix_nms(boxes, scores, 0.01, 0.4))
    return table


def _with_tactic(tactic: int, features: torch.Tensor, tubes: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: torch_ops.launch_roi_align(features, tubes, POOL_SIZE, tactic=tactic)


def _row(table: Table, name: str, way: str, count: float, runs: int, run: Callable[[], torch.Tensor]) -> None:
    for _ in range(_WARM_UP_RUNS):
        run()
    # The host's work for a launch takes longer than the kernel: it is done once, in recording a graph.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    # Writing this pushes everything else out of the caches, and lasts longer than the host needs to queue the graph.
    old_data = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    times_us = []
    for _ in range(runs):
        old_data.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times_us.append(1e3 * start.elapsed_time(end))
    median_us = statistics.median(times_us)
    table.add_row(name, way, f"{median_us:.1f}", f"{count / median_us / 1e3:.0f}")


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    console = Console()
    console.print(floors(arguments.batch))
    if torch.cuda.is_available():
        console.print(measure(arguments.batch, arguments.runs))
    else:
        console.print("PyTorch sees no CUDA device: nothing was measured")


if __name__ == "__main__":
    main()
