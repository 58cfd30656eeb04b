"""Runs `step-build BUNDLE --engine tensorrt|tensorrt-rtx`."""

from pathlib import Path
from typing import cast

import click
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from step.bundles.engines import BuildOptions, EngineSet
from step.bundles.libraries import LIBRARIES, Library
from step.checkpoints.toy_model import NAME, is_packaged
from step.cli import OneLineCommand
from step.errors import StepError
from step.shown import make_console
from step_export.engines.options import BuildChoices, with_build_options
from step_export.engines.writer import build_engines


@click.command(cls=OneLineCommand, context_settings={"show_default": True})
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--engine", "library", required=True, type=click.Choice(LIBRARIES), help="Which library builds and runs them."
)
@click.option("--batch", type=int, help="Clips a call, fixed.  [default: 1]")
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
    build_with_bar(bundle, options, timing_cache=choices.timing_cache, device=choices.device, force=force)


def build_with_bar(bundle: Path, options: BuildOptions, *, timing_cache: Path | None, device: int, force: bool) -> None:
    """Calls `build_engines`, with a progress bar and a summary on the terminal; raises what it raises."""
    console = make_console()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(graph: str, phase: str, fraction: float) -> None:
            bar.update(task, description=escape(f"{graph}: {phase}"), completed=fraction)

        def wait() -> None:
            bar.update(task, description="waiting: another process is building engines of this bundle")

        engines, built = build_engines(
            bundle, options, timing_cache=timing_cache, device=device, force=force, progress=show, waiting=wait
        )
    if not built:
        console.print(escape(f"{bundle}: these engines are already there (--force builds them again)"))
    if engines.plugin_problem is not None:
        console.print(f"Function bodies instead of plugins: {engines.plugin_problem}", soft_wrap=True, markup=False)
    console.print(_engine_table(engines))
    console.print(
        f"Run them: step-run VIDEO --model {bundle} --backend {options.library}", soft_wrap=True, markup=False
    )


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
