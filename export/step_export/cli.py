"""Runs `step-export CHECKPOINT -o BUNDLE` and `step-export BUNDLE --triton REPOSITORY`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
from click.core import ParameterSource
from rich import box
from rich.table import Table

from step.bundles.engines import BuildOptions
from step.bundles.graph_spec import Precision
from step.bundles.libraries import LIBRARIES, Library
from step.bundles.manifest import Manifest, ParityRow
from step.checkpoints.toy_model import find_bundle
from step.cli import OneLineCommand, examples, find_reporter, takes
from step.errors import StepError
from step.parameters import Choice, FilePath, Number, OrWord, Whole
from step.reporter import Reporter
from step_export.engines.cli import build_and_report
from step_export.engines.option_checks import load_for_build
from step_export.engines.options import BuildChoices, with_build_options
from step_export.triton.repository import RepositoryOptions, check_repository, write_repository

if TYPE_CHECKING:  # it takes torch, which is imported once the options are known to be right
    from step_export.bundle_writer import ExportSettings, GraphChoice

_GRAPHS = ("fused", "steps", "all")
_ABOUT_REPOSITORIES = ("checkpoint", "triton", "triton_batch", "triton_instances", "overwrite", "verbose", "quiet")
_KINDS = ("features", "scores", "boxes (px)", "detections")


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Holds what was typed; see `step-export --help`."""

    checkpoint: Path
    bundle: Path | None
    precision: str
    graphs: str
    steps: int | None
    batch: int | None
    opset: int
    score_threshold: float
    nms_iou: float
    max_detections: int
    keep_fp32: tuple[str, ...]
    verify: bool
    overwrite: bool
    library: str
    triton: Path | None
    triton_batch: int | None
    triton_instances: int
    choices: BuildChoices

    def check(self) -> None:
        """Refuses options that belong to what is not asked for, and a repository that would be refused later.

        Raises:
            click.UsageError: such options.
            StepError: see `check_repository`.
        """
        given = _given_options()
        if self.bundle is None and self.triton is None:
            raise click.UsageError("Missing option -o; give the bundle folder to write (or --triton, for a BUNDLE)")
        if self.bundle is None and (about_export := [name for name in given if name not in _ABOUT_REPOSITORIES]):
            raise click.UsageError(
                f"{given[about_export[0]]} is about an export, which needs -o BUNDLE too; without it {self.checkpoint} "
                "has to be a bundle, and is served as it is"
            )
        if self.triton is None and (about_triton := [name for name in given if name.startswith("triton_")]):
            raise click.UsageError(f"{given[about_triton[0]]} needs --triton REPOSITORY")
        if self.triton is not None:
            self.repository_options().check()
            check_repository(self.triton, overwrite=self.overwrite)

    def repository_options(self) -> RepositoryOptions:
        """Returns how Triton serves the models."""
        return RepositoryOptions(batch=self.triton_batch, instances=self.triton_instances)

    def build_options(self) -> BuildOptions | None:
        """Returns how to build engines, checked; None where none are wanted.

        Raises:
            StepError: options that contradict each other or are out of range, or a library that is not installed.
        """
        if self.library == "none":
            if self.choices.without_plugins() != BuildChoices():
                raise StepError("options of an engine build, but no --engine; give --engine tensorrt or tensorrt-rtx")
            return None
        # --plugins is about the graphs, too: tensorrt-rtx then builds their bodies.
        of_engine = self.choices.without_plugins() if self.library == "tensorrt-rtx" else self.choices
        options = of_engine.options(cast(Library, self.library), batch=self.batch)
        load_for_build(options)
        return options

    def settings(self) -> "ExportSettings":
        """Returns what the export takes; imports torch."""
        from step_export.bundle_writer import ExportSettings

        return ExportSettings(
            precision=cast(Precision, self.precision),
            graphs=cast("GraphChoice", self.graphs),
            num_steps=self.steps,
            batch=self.batch,
            opset=self.opset,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
            verify=self.verify,
            keep_fp32=self.keep_fp32,
            plugins=self.choices.plugins is not False,
        )


@click.command(
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-export toy -o build/toy",
        "step-export model.pth -o build/fp16 --precision fp16 --keep-fp32 'heads.0.*'",
        "step-export model.pth -o build/bundle --batch 1 --engine tensorrt",
        "step-export build/bundle --triton build/repository",
    ),
)
@click.argument("checkpoint", type=FilePath())
@click.option("-o", "--output", "bundle", type=FilePath(), help="Bundle folder to write.")
@click.option("--precision", type=Choice(["fp32", "fp16"]), default="fp32", help="Of the networks; boxes stay fp32.")
@click.option("--graphs", type=Choice(_GRAPHS), default="all", help="Fused graph, step-loop graphs, or both.")
@click.option("--steps", type=Whole(1), help="Progressive steps to export.  [default: all]")
@click.option(
    "--batch", type=OrWord(Whole(1), "dynamic"), default="dynamic", metavar="N|dynamic", help="Clips per call."
)
@click.option("--opset", type=Whole(18, 23), default=20, help="ONNX operator set.")
@click.option(
    "--score-threshold", type=Number(least=0, below=1), default=0.01, help="Scores have to be above it; baked in."
)
@click.option(
    "--nms-iou",
    type=Number(above=0, most=1),
    default=0.4,
    help="Same-class boxes that overlap this much are merged; baked in.",
)
@click.option("--max-detections", type=Whole(1), default=300, help="Rows a clip, over all classes; baked in.")
@click.option(
    "--keep-fp32",
    multiple=True,
    metavar="PATTERN",
    help="With fp16: modules that stay float32, such as 'heads.0.*'; step-verify --bisect says which. Repeatable.",
)
@click.option(
    "--verify/--no-verify", default=True, help="Compare with PyTorch; beyond the tolerance nothing is written."
)
@click.option("--overwrite", is_flag=True, help="Replace an older bundle or repository in the same folder.")
@click.option(
    "--engine",
    "library",
    type=Choice([*LIBRARIES, "none"]),
    default="none",
    help="Build TensorRT engines too, for --batch clips a call (1 if it is dynamic); see step-build.",
)
@click.option(
    "--triton",
    type=FilePath(),
    metavar="REPOSITORY",
    help="Write a model repository for NVIDIA Triton; without -o, CHECKPOINT is a bundle.",
)
@click.option(
    "--triton-batch",
    type=Whole(1),
    metavar="N",
    help="Most clips of a call there.  [default: what the engine or the graphs take, or 8]",
)
@click.option("--triton-instances", type=Whole(1), default=1, help="Of each model, on each device.")
@with_build_options
@takes(ExportCommand)
def main(command: ExportCommand) -> None:
    """Exports a STEP checkpoint (ours or the 2019 release's) to a bundle of ONNX graphs, and builds engines of them.

    With --triton it writes a repository for NVIDIA's Triton server, of the exported bundle or of one that is given.
    """
    command.check()
    build_options = command.build_options()  # what is wrong here is said now, not after minutes of exporting
    reporter = find_reporter()
    if command.bundle is not None:
        manifest = _export(command, command.bundle, reporter)
        if manifest.parity is not None:
            reporter.result(graph_parity_table(list(manifest.parity)))
        reporter.result(_summary(manifest, command.bundle))
        if build_options is not None:
            build_and_report(command.bundle, build_options, command.choices, reporter, force=False)
    if command.triton is not None:
        _write_repository(command, command.triton, reporter)


def _given_options() -> dict[str, str]:
    """Returns the options that were typed: how they are called, by parameter."""
    context = click.get_current_context()
    return {
        str(parameter.name): max(parameter.opts, key=len)
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    }


def _write_repository(command: ExportCommand, repository: Path, reporter: Reporter) -> None:
    bundle = command.bundle or find_bundle(command.checkpoint)
    if bundle.is_file():
        raise StepError(f"{bundle}: is a checkpoint; export it too: -o BUNDLE --triton {repository}")
    with reporter.progress(f"writing {repository}"):
        notes = write_repository(bundle, repository, command.repository_options(), overwrite=command.overwrite)
    for note in notes:
        reporter.note(note)
    models = ", ".join(path.name for path in sorted(repository.iterdir()) if (path / "config.pbtxt").is_file())
    reporter.result(f"{repository}: {models}. Serve it: tritonserver --model-repository {repository}")


def _export(command: ExportCommand, bundle: Path, reporter: Reporter) -> Manifest:
    try:
        from step_export.bundle_writer import ParityError, export_bundle
    except ModuleNotFoundError as error:
        raise StepError(f"exporting needs {error.name}; install it with: pip install 'step-trt[export]'") from error
    with reporter.progress("starting") as progress:

        def show(message: str) -> None:
            progress.update(description=message)
            reporter.detail(message)

        try:
            return export_bundle(
                command.checkpoint, bundle, command.settings(), overwrite=command.overwrite, progress=show
            )
        except ParityError as error:
            raise StepError(f"{error} (--no-verify writes it all the same)") from error


def graph_parity_table(rows: list[ParityRow]) -> Table:
    """Shows the largest error over clips and tensors for every graph; the manifest holds every comparison."""
    table = Table(
        title="Parity with PyTorch fp32: largest error / tolerance",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("graph", no_wrap=True)
    for kind in _KINDS:
        table.add_column(kind, justify="right", no_wrap=True)
    for graph in dict.fromkeys(row.graph for row in rows):
        cells = [_cell([row for row in rows if row.graph == graph and _kind(row) == kind]) for kind in _KINDS]
        table.add_row(graph, *cells)
    return table


def _kind(row: ParityRow) -> str:
    if row.tensor.endswith("_px"):
        return "boxes (px)"
    return {"class_scores": "scores", "detections apart": "detections"}.get(row.tensor, "features")


def _cell(rows: list[ParityRow]) -> str:
    if not rows:
        return ""
    worst = max(rows, key=lambda row: (not row.passed, row.max_error))
    text = f"{worst.max_error:.1e}/{worst.tolerance:.0e}"  # short enough for 80 columns
    return text if worst.passed else f"[red]{text}[/]"


def _summary(manifest: Manifest, bundle: Path) -> str:
    size_mb = sum((bundle / graph.file).stat().st_size for graph in manifest.graphs.values()) / 1e6
    verified = "not verified" if manifest.parity is None else "verified against PyTorch"
    return (
        f"{bundle}: {manifest.precision}, {manifest.num_steps} steps, {', '.join(manifest.graphs)} "
        f"({size_mb:.0f} MB), {verified}. Run it: step-run VIDEO --model {bundle}"
    )


if __name__ == "__main__":
    main()
