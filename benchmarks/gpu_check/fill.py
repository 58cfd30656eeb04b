"""`python -m gpu_check.fill CHECK`: docs/gpu.md and the GPU's parts of other documents, written from gpu_check.json.

A part is what stands between `<!-- gpu_check: begin NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from step_runtime.benchmark.roofline.known_gpus import KnownGpu, known_gpu

from gpu_check.page import markdown_table, page_of
from gpu_check.results import UNKNOWN_GPU, CheckResult, Figure, StageResult, read_check
from step.cli import OneLineCommand
from step.errors import StepError
from step.files.atomic import atomic_path

ROOT = Path(__file__).resolve().parents[2]
CHECK_FILE, PAGE_FILE = Path("docs/gpu_check.json"), Path("docs/gpu.md")
_BLOCK = "<!-- gpu_check: begin {} -->\n"
_END = "<!-- end -->"

_MULTIPLY_ADDS, _BYTES = 447.2e9, 2.96e9  # of a clip: `step-bench roofline`
_CARDS = ("RTX 3090", "RTX 4090", "RTX 5090", "L4", "A100 80GB SXM", "H100 SXM", "H200")
# What drivers call cards that data sheets call otherwise.
_CARD_OF_DEVICE = {
    "NVIDIA H100 80GB HBM3": "H100 SXM",
    "NVIDIA A100-SXM4-80GB": "A100 80GB SXM",
    "NVIDIA A100-SXM4-40GB": "A100 40GB SXM",
}
_NOT_RUN = """# The check of a GPU machine

Not run: no machine with an NVIDIA GPU was at hand. On one with a driver, PyTorch, onnx and CUDA's compiler:

    make gpu-check

checks and measures everything that the machine allows in at most 7 minutes, each stage in a process of its own, and
writes `build/gpu-check/gpu_check.json` and a page of it. Where there is no network, carry what `make gpu-kit` prepared
on another machine. Then

    PYTHONPATH=benchmarks python -m gpu_check.fill build/gpu-check/gpu_check.json

makes this page and the GPU's parts of [README](../README.md) and [benchmarks.md](benchmarks.md) of it.
"""


@dataclass(frozen=True)
class Table:
    """Names figures of a check that a document shows.

    Attributes:
        stage: that found them.
        title: of the stage's table.
        columns: which of its columns; all of them if empty.
    """

    stage: str
    title: str
    columns: tuple[str, ...] = ()


_TIMES = ("median ms", "p95 ms", "clips/s")
PYTORCH = Table("pytorch", "full size, one clip a call", _TIMES)
ONNX_RUNTIME = Table("onnxruntime_cuda", "full size", _TIMES)
BENCHMARKS: dict[str, tuple[Table, ...]] = {
    "full-size": (PYTORCH, ONNX_RUNTIME),
    "toy-map": (Table("onnxruntime_cuda", "mAP parity on toy data"),),
    "kernels": (
        Table("kernel_times", "ceilings: best matrix product, best copy"),
        Table("kernel_times", "kernels, cold caches, launched by a CUDA graph"),
        Table("kernel_times", "the backbone's convolutions, fp16"),
    ),
    "training": (
        Table("training", "an update of the full-size detector"),
        Table("training", "the toy model, toy_detect.yaml"),
    ),
}


def documents(root: Path, check: CheckResult | None) -> dict[Path, str]:
    """Makes every document from a check, by its path in the project.

    Args:
        root: folder of the project.
        check: of a GPU; None where there was none.

    Raises:
        StepError: no GPU made the check, or a document has lost a part's marks.
    """
    if check is not None and check.device in ("none", UNKNOWN_GPU):
        raise StepError(f"no GPU made it (device: {check.device}); run make gpu-check on a machine with one")
    page = _NOT_RUN if check is None else page_of(check)
    return {
        PAGE_FILE: page,
        Path("README.md"): _filled(root / "README.md", {"state": _state(check)}),
        Path("docs/benchmarks.md"): _filled(
            root / "docs/benchmarks.md",
            {"floors": _floors(check)} | {name: _tables(check, tables) for name, tables in BENCHMARKS.items()},
        ),
    }


def joined(checks: Sequence[CheckResult]) -> CheckResult:
    """Makes one check of several on the same card: the last one's stages, and those that only earlier ones have.

    Raises:
        StepError: they are of different cards.
    """
    last = checks[-1]
    stages: dict[str, StageResult] = {}
    for check in checks:
        if check.device != last.device:
            raise StepError(f"the checks are of {check.device} and of {last.device}; give those of one card")
        stages |= {stage.name: stage for stage in check.stages}
    versions: dict[str, str] = {}
    for check in checks:
        versions |= check.versions
    changed = {"stages": tuple(stages.values()), "versions": versions, "seconds": sum(each.seconds for each in checks)}
    return last.model_copy(update=changed)


def _filled(path: Path, parts: dict[str, str]) -> str:
    text = path.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin = _BLOCK.format(name)
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(_END)
        if not found or not ended:
            raise StepError(f"{path}: has no {begin.strip()} ... {_END}; put the marks where that part belongs")
        text = f"{before}{begin}{part}{ended}{after}"
    return text


def _state(check: CheckResult | None) -> str:
    if check is None:
        return "No number below comes from a GPU; `make gpu-check` measures on one ([how](docs/gpu.md)).\n"
    counts: dict[str, list[str]] = {}
    for stage in check.stages:
        counts.setdefault(stage.status, []).append(stage.name)
    said = "; ".join(
        f"{len(names)} of {len(check.stages)} stages {status}"
        + ("" if status == "passed" else f" ({', '.join(names)})")
        for status, names in counts.items()
    )
    return f"`make gpu-check` ran on {_where(check)}: {said}. [All that it found](docs/gpu.md).\n"


def _floors(check: CheckResult | None) -> str:
    """Says what a clip takes on known cards at least, and what it took on the card of the check."""
    work, traffic = f"{_MULTIPLY_ADDS / 1e9:.1f} G multiply-adds", f"{_BYTES / 1e9:.2f} GB"
    said = (
        f"What a clip (fp16, batch 1) should take on a GPU at least, from {work} and {traffic}\n"
        "read and written by convolutions, poolings and matrix products, at the cards' data-sheet peaks"
    )
    fastest = {} if check is None else _fastest_half(check)
    header = ["card", "compute floor, ms", "memory floor, ms", *(f"{library}, ms" for library in fastest)]
    rows = {name: [*_floors_ms(known_gpu(name)), *[""] * len(fastest)] for name in _CARDS}
    if check is not None and fastest:
        gpu = _known(check.device)
        floors_ms = ["", ""] if gpu is None else _floors_ms(gpu)
        rows[check.device if gpu is None else gpu.name] = [*floors_ms, *(f"{ms:.1f}" for _, ms in fastest.values())]
        ways = "; ".join(f"{library}: {way}" for library, (way, _) in fastest.items())
        said += (
            f".\nBeside them, what the fastest fp16 configuration of a library took on {_where(check)}, frames from "
            "the host,\n"
            f"detections back there ({ways}; [the others](#full-size))"
        )
    lines = [
        f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *([name, *rows[name]] for name in rows))
    ]
    return f"{said}:\n\n" + "\n".join(lines) + "\n"


def _floors_ms(gpu: KnownGpu) -> list[str]:
    peaks = gpu.peaks()
    floors_s = _MULTIPLY_ADDS / peaks.multiply_adds_per_s["fp16"], _BYTES / peaks.bytes_per_s
    return [f"{1e3 * floor_s:.1f}" for floor_s in floors_s]


def _known(device: str) -> KnownGpu | None:
    try:
        return known_gpu(_CARD_OF_DEVICE.get(device, device))
    except StepError:
        return None


def _fastest_half(check: CheckResult) -> dict[str, tuple[str, float]]:
    """Finds each library's fp16 configuration that took the least for one clip, and its median."""
    found: dict[str, tuple[str, float]] = {}
    for library, table in (("PyTorch", PYTORCH), ("ONNX Runtime", ONNX_RUNTIME)):
        times_ms = {
            figure.row: float(figure.value)
            for figure in _figures(check, table)
            if figure.column == "median ms" and not isinstance(figure.value, str)
        }
        one = {way: ms for way, ms in times_ms.items() if "fp16" in way and not re.search(r"batch (?!1\b)", way)}
        if one:
            way = min(one, key=one.__getitem__)
            found[library] = way, one[way]
    return found


def _tables(check: CheckResult | None, tables: Sequence[Table]) -> str:
    """Writes tables as Markdown; one line where there are none."""
    shown = [] if check is None else [(table, figures) for table in tables if (figures := _figures(check, table))]
    if check is None or not shown:
        return "Not measured on a GPU yet; [what measures it](gpu.md).\n"
    lines = [f"On {_where(check)}, by `make gpu-check` ([all of it](gpu.md)):"]
    for table, figures in shown:
        lines += ["", f"**{table.stage}: {table.title}**", "", *markdown_table(figures)]
    return "\n".join(lines) + "\n"


def _figures(check: CheckResult, table: Table) -> list[Figure]:
    return [
        figure
        for stage in check.stages
        if stage.name == table.stage
        for figure in stage.figures
        if figure.table == table.title and (not table.columns or figure.column in table.columns)
    ]


def _where(check: CheckResult) -> str:
    return f"{check.device} ({check.made_at[:10]})"


@click.command(cls=OneLineCommand)
@click.argument("checks", nargs=-1, required=True, metavar="CHECK...", type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), default=ROOT, help="Folder of the project.", show_default=True)
def main(checks: tuple[Path, ...], root: Path) -> None:
    """Writes docs/gpu.md and the GPU's parts of README.md and docs/benchmarks.md from CHECK, and keeps it in docs.

    The documents are then those of the newest run; the same CHECK again changes nothing. Of several, each gives the
    stages that it has, and the later ones' are taken: for a stage that was run again with --only.
    """
    found = joined([read_check(check) for check in checks])
    texts = documents(root, found)
    for path, text in {**texts, CHECK_FILE: found.model_dump_json(indent=1) + "\n"}.items():
        if _read(root / path) != text:
            with atomic_path(root / path) as scratch:
                scratch.write_text(text, encoding="utf-8")
            click.echo(path)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    main()
