"""Runs `step-build BUNDLE --engine tensorrt|tensorrt-rtx`."""

from pathlib import Path
from typing import cast

import click
from rich import box
from rich.table import Table

from step.bundles.engines import BuildOptions, EngineSet
from step.bundles.libraries import LIBRARIES, Library
from step.checkpoints.toy_model import NAME, is_packaged
from step.cli import OneLineCommand, examples, find_reporter
from step.errors import StepError
from step.parameters import Choice, FilePath, Whole
from step.reporter import Reporter
from step_export.engines.option_checks import LARGEST_BATCH
from step_export.engines.options import BuildChoices, with_build_options
from step_export.engines.writer import build_engines


@click.command(
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-build build/bundle --engine tensorrt",
        "step-build build/bundle --engine tensorrt-rtx --batch 4",
        "step-build build/bundle --engine tensorrt --timing-cache timings --force",
    ),
)
@click.argument("bundle", type=FilePath())
@click.option("--engine", "library", required=True, type=Choice(LIBRARIES), help="Which library builds and runs them.")
@click.option("--batch", type=Whole(1, LARGEST_BATCH), help="Clips a call, fixed.  [default: 1]")
@with_build_options
@click.option("--force", is_flag=True, help="Build even what is already there.")
def main(
    bundle: Path,
    library: str,
    batch: int | None,
    choices: BuildChoices,
    force: bool,
) -> None:
    """Builds TensorRT engines of BUNDLE, which may have been exported on another machine; needs neither torch nor onnx.

    tensorrt builds for the GPU of this machine, tensorrt-rtx on any machine for RTX GPUs since Ampere.
    """
    if is_packaged(bundle):
        raise StepError(
            f"{bundle}: the packaged bundle is not written to; make one of your own: step-export {NAME} -o BUNDLE "
            f"--engine {library}"
        )
    options = choices.options(cast(Library, library), batch=batch)
    build_and_report(bundle, options, choices, find_reporter(), force=force)


def build_and_report(
    bundle: Path, options: BuildOptions, choices: BuildChoices, reporter: Reporter, *, force: bool
) -> None:
    """Calls `build_engines`; says how far it is and what came of it. Raises what that raises."""
    with reporter.progress("building engines", total=100, unit="%") as progress:

        def show(graph: str, phase: str, fraction: float) -> None:
            progress.update(round(100 * fraction), status=f"{graph}: {phase}")

        def wait() -> None:
            progress.update(status="waiting: another process is building engines of this bundle")

        engines, built = build_engines(
            bundle,
            options,
            timing_cache=choices.timing_cache,
            device=choices.device,
            force=force,
            progress=show,
            waiting=wait,
        )
    if not built:
        reporter.note(f"{bundle}: these engines are already there (--force builds them again)")
    if engines.plugin_problem is not None:
        reporter.note(f"Function bodies instead of plugins: {engines.plugin_problem}")
    reporter.result(_engine_table(engines))
    reporter.result(f"Run them: step-run VIDEO --model {bundle} --backend {options.library}")


def _engine_table(engines: EngineSet) -> Table:
    options = engines.options
    batch = (
        str(options.opt_batch)
        if options.min_batch == options.max_batch
        else f"{options.min_batch} to {options.max_batch}, tuned for {options.opt_batch}"
    )
    table = Table(
        title=f"{options.library} {engines.version}, {engines.precision}, batch {batch}\n"
        f"for {', '.join(engines.compute_capabilities) or 'an unknown GPU'}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("engine", "build (s)", "size (MB)", "weights (MB)", "scratch (MB)", "layers", "plugins"):
        table.add_column(column, justify="left" if column == "engine" else "right", no_wrap=True)
    for name, record in engines.engines.items():
        table.add_row(
            name,
            f"{record.build_s:.1f}",
            f"{record.size_bytes / 1e6:.1f}",
            _megabytes(record.weights_bytes),
            _megabytes(record.scratch_bytes),
            str(sum(record.layers.values())),
            str(len(record.plugins)),
        )
    return table


def _megabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e6:.1f}"


if __name__ == "__main__":
    main()
