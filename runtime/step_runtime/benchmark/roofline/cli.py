"""`step-bench roofline`: how far each stage of a clip is from what the machine can do at most."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click

from step.bundles.manifest import no_such_model, read_bundle
from step.checkpoints.toy_model import find_bundle
from step.cli import OneLineCommand, examples, find_reporter, takes
from step.cpus import available_cpus
from step.errors import StepError
from step.files.atomic import atomic_path, check_outputs
from step.parameters import Choice, FilePath, ListOf, Number, Whole
from step_runtime.backends.select import MOST_THREADS
from step_runtime.benchmark.roofline.known_gpus import known_gpu
from step_runtime.benchmark.roofline.peaks import Peaks, measure_cpu_peaks, measure_cuda_peaks
from step_runtime.benchmark.roofline.report import roofline_figure, roofline_markdown, roofline_table, summary_lines
from step_runtime.benchmark.roofline.roofline import Roofline, roofline
from step_runtime.benchmark.roofline.stage_times import STAGE_BACKENDS, time_stages_apart
from step_runtime.benchmark.roofline.work import stage_work
from step_runtime.benchmark.rounds import MIN_RUNS, MIN_S

_MOST_LOAD = 0.7
_PATH = FilePath()


@dataclass(frozen=True)
class RooflineCommand:
    """What was typed; see `step-bench roofline --help`."""

    bundle: Path
    backends: tuple[str, ...]
    threads: int | None
    batch: int
    runs: int
    seconds: float
    gpu: str | None
    precision: str | None
    json_file: Path | None
    plot_file: Path | None
    markdown_file: Path | None

    def check(self) -> None:
        """Refuses what can be refused before long work.

        Raises:
            StepError: an output that cannot be written, or options that do not go together.
        """
        check_outputs({"--json": self.json_file, "--plot": self.plot_file, "--markdown": self.markdown_file})
        if self.plot_file is not None:
            _check_plot(self.plot_file)
        if not find_bundle(self.bundle).exists():
            raise no_such_model(self.bundle)
        if self.precision is not None and self.gpu is None:
            raise StepError("--precision is for --gpu; on a CPU graphs are computed in fp32")


@click.command(
    "roofline",
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-bench roofline toy",
        "step-bench roofline bundle --backends openvino --threads 1 --plot roofline.png",
        "step-bench roofline bundle --gpu A100 --precision fp16",
    ),
)
@click.argument("bundle", type=_PATH, metavar="BUNDLE|toy")
@click.option(
    "--backends",
    type=ListOf(Choice(STAGE_BACKENDS)),
    default=",".join(STAGE_BACKENDS),
    metavar="NAME,...",
    help="To time the stages on.",
)
@click.option("--threads", type=Whole(1, MOST_THREADS), help="CPU threads.  [default: all]")
@click.option("--batch", type=Whole(1), default=1, help="Clips of a call.")
@click.option("--runs", type=Whole(1), default=MIN_RUNS, help="Calls of each stage, at least.")
@click.option("--seconds", type=Number(least=0), default=MIN_S, help="Time of each stage, at least.")
@click.option(
    "--gpu", metavar="NAME", help="The least times on this GPU, by its data sheet, or on the one that is here."
)
@click.option("--precision", type=Choice(["fp32", "tf32", "fp16"]), help="With --gpu.  [default: the bundle's]")
@click.option("--json", "json_file", type=_PATH, help="Write everything there.")
@click.option("--plot", "plot_file", type=_PATH, help="Draw it there, as PNG, SVG or PDF.")
@click.option("--markdown", "markdown_file", type=_PATH, help="Write the table there.")
@takes(RooflineCommand)
def roofline_command(command: RooflineCommand) -> None:
    """Compares the stages of BUNDLE with this machine's own matrix product and memory, or with a GPU's data sheet."""
    command.check()
    gpu = command.gpu
    peaks = None if gpu is None else measure_cuda_peaks() if gpu == "here" else known_gpu(gpu).peaks()
    reporter = find_reporter()
    if peaks is None and (busy := _load()) > _MOST_LOAD:
        reporter.warning(
            f"the machine is busy (load {busy:.1f}): times will be too long, and shares of the limit too small"
        )
    with reporter.progress("starting") as progress:
        folder = find_bundle(command.bundle)
        result = _measure(command, folder, peaks, report=lambda what: progress.update(description=what))
    reporter.result(roofline_table(result))
    for line in summary_lines(result):
        reporter.result(line)
    if command.json_file is not None:
        result.write(command.json_file)
    if command.markdown_file is not None:
        with atomic_path(command.markdown_file) as path:
            path.write_text(roofline_markdown(result), encoding="utf-8")
    if command.plot_file is not None:
        with atomic_path(command.plot_file) as path:
            roofline_figure(result).savefig(path)
    if gpu is None and not result.measured:
        raise StepError("none of the backends could run here; the lines above say why")


def _measure(command: RooflineCommand, folder: Path, peaks: Peaks | None, *, report: Callable[[str], None]) -> Roofline:
    """The least times on a GPU; or the machine's peaks, and the stages' times beside them."""
    manifest = read_bundle(folder)
    bundle, batch = str(command.bundle), command.batch
    if peaks is not None:
        precision = command.precision or manifest.precision
        return roofline(
            stage_work(folder, manifest, batch=batch), peaks, bundle=bundle, batch=batch, precision=precision
        )
    report("timing the stages")
    threads = command.threads or available_cpus()
    times = time_stages_apart(
        folder,
        manifest,
        backends=command.backends,
        threads=threads,
        batch=batch,
        min_runs=command.runs,
        min_s=command.seconds,
    )
    work = stage_work(folder, manifest, batch=batch)
    measured = measure_cpu_peaks(threads=threads, progress=report)
    found = roofline(work, measured, bundle=bundle, batch=batch, precision="fp32", times=times)
    return replace(found, threads=threads, source_sha256=manifest.source.sha256)


def _load() -> float:
    """Processes that wanted to run in the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _check_plot(path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise StepError(f"--plot needs {error.name}; pip install 'step-trt[eval]'") from error
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise StepError(f"--plot is {path}: no format of a figure; end it with .png, .svg or .pdf")
