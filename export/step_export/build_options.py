"""The options of an engine build, shared by `step-build` and `step-export --engine`."""

import functools
import re
from collections.abc import Callable
from typing import Any

import click

from step.engines import BuildOptions
from step.errors import StepError
from step.flavours import Flavour

_TARGET = re.compile(r"sm\d{2,3}")

_OPTIONS = (
    click.option("--min-batch", type=int, help="Fewest clips a call (a profile instead of one batch size)."),
    click.option("--opt-batch", type=int, help="The batch size to tune for.  [default: --max-batch]"),
    click.option("--max-batch", type=int, help="Most clips a call."),
    click.option("--workspace", type=int, metavar="MIB", help="Most scratch memory of a layer."),
    click.option("--optimization-level", type=int, metavar="0-5", help="How long to look for faster kernels."),
    click.option(
        "--timing-cache", type=click.Path(path_type=str), help="tensorrt: file of layer timings to use and extend."
    ),
    click.option("--hardware-compatible", is_flag=True, help="tensorrt: for every Ampere or later GPU."),
    click.option("--version-compatible", is_flag=True, help="For later versions of the library too."),
    click.option("--target", default="", metavar="SM,...", help="tensorrt-rtx: GPUs to build for, as sm86,sm89,sm120."),
    click.option("--tf32/--no-tf32", default=True, help="TF32 in float32 layers."),
    click.option("--profile-layers", is_flag=True, help="Keep every layer's details for inspectors and profilers."),
)


def with_build_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a click command, which receives their values under the options' names."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), command)


def make_build_options(
    flavour: Flavour,
    *,
    batch: int | None,
    min_batch: int | None,
    opt_batch: int | None,
    max_batch: int | None,
    workspace: int | None,
    optimization_level: int | None,
    hardware_compatible: bool,
    version_compatible: bool,
    target: str,
    tf32: bool,
    profile_layers: bool,
) -> BuildOptions:
    """The options as one object.

    Args:
        flavour: which library.
        batch: a static batch; None takes the profile, or 1.
        target: comma-separated compute capabilities.
        min_batch, opt_batch, max_batch, workspace, optimization_level, hardware_compatible, version_compatible, tf32,
            profile_layers: see `BuildOptions`.

    Raises:
        StepError: a batch and a profile at once, half a profile, or a target that is none.
    """
    profile = (min_batch, opt_batch, max_batch)
    if batch is not None and any(size is not None for size in profile):
        raise StepError(f"--batch {batch} is a static batch; give either it or --min/--opt/--max-batch")
    if max_batch is None and (min_batch is not None or opt_batch is not None):
        raise StepError("--min-batch and --opt-batch need --max-batch beside them")
    largest = max_batch if max_batch is not None else batch if batch is not None else 1
    smallest = largest if max_batch is None else 1 if min_batch is None else min_batch
    targets = tuple(part.strip().lower() for part in target.split(",") if part.strip())
    for name in targets:
        if not _TARGET.fullmatch(name):
            raise StepError(f"--target {name!r} is no compute capability; give names such as sm86,sm89,sm120")
    return BuildOptions(
        flavour=flavour,
        min_batch=smallest,
        opt_batch=largest if opt_batch is None else opt_batch,
        max_batch=largest,
        workspace_mb=workspace,
        optimization_level=optimization_level,
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        targets=targets,
        tf32=tf32,
        profile_layers=profile_layers,
    )
