"""What the plugins' kernels take on this machine's GPU, beside the time that their memory traffic needs.

    python benchmarks/plugin_kernels.py

Every tactic and layout of both kernels at the released network's sizes, and the matrix products that they replace.
Without a GPU only the traffic is printed, and its time on some cards. `make gpu-check` measures the same.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from gpu_check.timing import Timer, captured
from rich import box
from rich.console import Console
from rich.table import Table
from step_plugins import class_nms, roi_align, torch_ops

from step.ops.class_nms import matrix_nms
from step.ops.roi_align import matrix_roi_align

GB_PER_S = {"A10": 600, "L4": 300, "4090": 1008, "H100": 3350, "H200": 4800}


@dataclass(frozen=True)
class Sizes:
    """The sizes of one call.

    Attributes:
        batch: clips.
        tubes: of a clip.
        classes: that are told apart.
        channels: of the features.
        cells: the features' height and width.
        pool_size: bins along a side.
    """

    batch: int = 1
    tubes: int = 34
    classes: int = 60
    channels: int = 832
    cells: int = 25
    pool_size: int = 7


@dataclass(frozen=True)
class Variant:
    """One way to run an operator.

    Attributes:
        operator: which, with its dtype and frames.
        configuration: the kernel with its layout and tactic, or what it replaces.
        bytes: what the kernel moves by the traffic model.
        run: does it once.
    """

    operator: str
    configuration: str
    bytes: float
    run: Callable[[], torch.Tensor]


def traffic(sizes: Sizes) -> dict[str, dict[str, float]]:
    """Bytes of each operator, by what runs it."""
    rows = {}
    for half in (True, False):
        for frames in (3, 9):
            rows[_align_name(half, frames)] = roi_align.traffic_bytes(
                batch=sizes.batch,
                tubes=sizes.tubes,
                frames=frames,
                channels=sizes.channels,
                height=sizes.cells,
                width=sizes.cells,
                pool_size=sizes.pool_size,
                half=half,
            )
    rows["nms"] = class_nms.traffic_bytes(batch=sizes.batch, boxes=sizes.tubes, classes=sizes.classes)
    return rows


def variants(sizes: Sizes, device: str) -> Iterator[Variant]:
    """Every tactic and layout of both kernels, and the matrix products, on random features and boxes."""
    counts = traffic(sizes)
    generator = torch.Generator(device).manual_seed(0)
    image_px = sizes.cells * roi_align.FEATURE_STRIDE
    for half in (True, False):
        for frames in (3, 9):
            name = _align_name(half, frames)
            memory = torch.randn(
                (sizes.batch, frames, sizes.cells, sizes.cells, sizes.channels), device=device, generator=generator
            ).to(torch.float16 if half else torch.float32)
            last = memory.permute(0, 1, 4, 2, 3)  # channels last, as a convolution on tensor cores gives them
            linear = last.contiguous()
            tubes = _boxes((sizes.batch, sizes.tubes, frames), image_px, device, generator)
            for layout, features in (("channels last", last), ("linear", linear)):
                for tactic in roi_align.TACTICS:
                    yield Variant(
                        name, f"{layout}, tactic {tactic}", counts[name]["kernel"], _align(features, tubes, tactic)
                    )
            yield Variant(name, "matrix products", counts[name]["kernel"], _products(linear, tubes, sizes.pool_size))
    boxes = _boxes((sizes.batch, sizes.tubes), image_px, device, generator)
    scores = torch.rand(sizes.batch, sizes.tubes, sizes.classes, device=device, generator=generator)
    count = counts["nms"]["kernel"]
    yield Variant("nms", "kernel", count, lambda: torch_ops.class_nms_cuda(boxes, scores, 0.01, 0.4))
    yield Variant("nms", "matrix products", count, lambda: matrix_nms(boxes, scores, 0.01, 0.4))


def _align_name(half: bool, frames: int) -> str:
    return f"align {'fp16' if half else 'fp32'} T{frames}"


def _boxes(shape: tuple[int, ...], image_px: int, device: str, generator: torch.Generator) -> torch.Tensor:
    """A third of the image high and wide."""
    low = 0.62 * image_px * torch.rand((*shape, 2), device=device, generator=generator)
    return torch.cat((low, low + 0.32 * image_px), -1)


def _align(features: torch.Tensor, tubes: torch.Tensor, tactic: int) -> Callable[[], torch.Tensor]:
    last = features.is_contiguous() is False
    return lambda: torch_ops.launch_roi_align(features, tubes, 7, tactic=tactic, channels_last=last)


def _products(features: torch.Tensor, tubes: torch.Tensor, pool_size: int) -> Callable[[], torch.Tensor]:
    return lambda: matrix_roi_align(features, tubes, pool_size)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("operator", "configuration"):
        table.add_column(column, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def floors(sizes: Sizes) -> Table:
    """The traffic, and the time that it takes at the full speed of some cards' memory."""
    table = _table(f"Calculated, not measured: {sizes.batch} clip(s); us at each card's bandwidth", ("MB", *GB_PER_S))
    for operator, configurations in traffic(sizes).items():
        for configuration, count in configurations.items():
            times = (f"{count / speed / 1e3:.2f}" for speed in GB_PER_S.values())
            table.add_row(operator, configuration, f"{count / 1e6:.3g}", *times)
    return table


def measure(sizes: Sizes, runs: int) -> Table:
    """Median times on the GPU at hand, with old data in its caches; GB/s of the kernel's calculated traffic."""
    table = _table(f"{torch.cuda.get_device_name()}: {sizes.batch} clip(s), {runs} runs", ("median us", "GB/s"))
    timer = Timer("cuda", flush=True)
    for variant in variants(sizes, "cuda"):
        # The host's work for a launch takes longer than the kernel: it is done once, in recording a graph.
        median_us = 1e3 * timer.time(captured(variant.run, "cuda"), runs=runs).median_ms
        table.add_row(
            variant.operator, variant.configuration, f"{median_us:.1f}", f"{variant.bytes / median_us / 1e3:.0f}"
        )
    return table


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    console = Console()
    sizes = Sizes(batch=arguments.batch)
    console.print(floors(sizes))
    if torch.cuda.is_available():
        console.print(measure(sizes, arguments.runs))
    else:
        console.print("PyTorch sees no CUDA device: nothing was measured")


if __name__ == "__main__":
    main()
