"""Registers and shared memory of every variant of the plugins' kernels on every architecture, by ptxas.

    python benchmarks/plugin_resources.py [sm_90 ...]

Needs the CUDA toolkit's ptxas, no GPU. The tests assert that nothing spills and that every variant keeps to the limits.
"""

import argparse
import itertools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from step_plugins import class_nms, roi_align
from step_plugins.kernel import Kernel

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def variants() -> dict[str, Kernel]:
    """What TensorRT is offered for the released network, and the largest that each kernel is made for."""
    kernels = {}
    for half, last, tactic in itertools.product((True, False), (True, False), roi_align.TACTICS):
        layout = "LINEAR" if not last else "HWC8" if half else "HWC"
        name = f"roi_align {'fp16' if half else 'fp32'} {layout} {tactic}"
        kernels[name] = roi_align.kernel(
            half=half, channels_last=last, pitch=832, max_cells=25, pool_size=7, tactic=tactic
        )
    for tactic in roi_align.TACTICS:
        kernels[f"roi_align largest {tactic}"] = roi_align.kernel(
            half=False,
            channels_last=True,
            pitch=7,
            max_cells=roi_align.MAX_CELLS,
            pool_size=roi_align.MAX_POOL_SIZE,
            tactic=tactic,
        )
    for boxes, tactic in itertools.product((34, class_nms.MAX_BOXES), class_nms.TACTICS):
        kernels[f"class_nms {boxes} boxes {tactic}"] = class_nms.kernel(
            max_boxes=boxes, score_threshold=0.01, iou_threshold=0.4, tactic=tactic
        )
    return kernels


def resources(ptx: bytes, architecture: str) -> dict[str, int]:
    """What ptxas says of a kernel's PTX: registers, shared_bytes, spilled_bytes (stack frames counted in)."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_bytes(ptx)
        command = ["ptxas", "-v", f"-arch={architecture}", source, "-o", source.with_suffix(".cubin")]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr

    def total(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, said)))

    registers = total(r"Used (\d+) registers")
    assert registers, said
    spilled = total(r"(\d+) bytes spill") + total(r"(\d+) bytes stack frame")
    return {"registers": registers, "shared_bytes": total(r"(\d+) bytes smem"), "spilled_bytes": spilled}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Registers and shared memory of the plugins' kernels, by ptxas.")
    parser.add_argument("architectures", nargs="*", default=ARCHITECTURES, help="[default: all]")
    architectures = parser.parse_args().architectures
    if shutil.which("ptxas") is None:
        raise SystemExit("ptxas is not on the PATH; it comes with the CUDA toolkit")
    title = "Registers a thread, shared memory a block, bytes spilled"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("kernel, tactic", "threads", *architectures, "shared", "spilled"):
        table.add_column(column, justify="left" if "kernel" in column else "right", no_wrap=True)
    for name, kernel in variants().items():
        used = [resources(kernel.ptx(), architecture) for architecture in architectures]
        shared = {row["shared_bytes"] for row in used}
        spilled = max(row["spilled_bytes"] for row in used)
        counts = (str(row["registers"]) for row in used)
        table.add_row(name, str(kernel.threads), *counts, " ".join(map(str, sorted(shared))), str(spilled))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
