"""The options of an engine build, shared by `step-build` and `step-export --engine`."""

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from step.bundles.engines import BuildOptions
from step.bundles.libraries import Flavour
from step.errors import StepError
from step_export.engines.writer import check_options

_TARGET = re.compile(r"sm\d{2,3}")
_DEVICE = re.compile(r"cuda:(\d{1,3})")

_OPTIONS = (
    click.option("--min-batch", type=int, help="Fewest clips a call (a profile instead of one batch size)."),
    click.option("--opt-batch", type=int, help="The batch size to tune for.  [default: --max-batch]"),
    click.option("--max-batch", type=int, help="Most clips a call."),
    click.option("--workspace", type=int, metavar="MIB", help="Most scratch memory of a layer."),
    click.option("--optimization-level", type=int, metavar="0-5", help="How long to look for faster kernels."),
    click.option(
        "--timing-cache", type=click.Path(path_type=Path), help="tensorrt: file of layer timings to use and extend."
    ),
    click.option("--hardware-compatible", is_flag=True, help="tensorrt: for every Ampere or later GPU."),
    click.option("--version-compatible", is_flag=True, help="tensorrt: for later versions of it too."),
    click.option("--target", default="", metavar="SM,...", help="tensorrt-rtx: GPUs to build for, as sm86,sm89,sm120."),
    click.option("--tf32/--no-tf32", default=True, help="TF32 in float32 layers."),
    click.option("--build-device", default="cuda:0", metavar="cuda:N", help="tensorrt: the GPU to build on and for."),
    click.option(
        "--plugins/--no-plugins",
        default=None,
        help="tensorrt: the custom operators as plugins, or as their bodies of standard operators.  [default: plugins]",
    ),
    click.option("--profile-layers", is_flag=True, help="Keep every layer's details for inspectors and profilers."),
)


@dataclass(frozen=True, kw_only=True)
class BuildChoices:
    """What was said on the command line; see `step.bundles.engines.BuildOptions`, which `options` makes of it."""

    min_batch: int | None = None
    opt_batch: int | None = None
    max_batch: int | None = None
    workspace: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    hardware_compatible: bool = False
    version_compatible: bool = False
    target: str = ""
    tf32: bool = True
    plugins: bool | None = None
    profile_layers: bool = False
    build_device: str = "cuda:0"

    @property
    def device(self) -> int:
        """Index of the GPU to build on."""
        found = _DEVICE.fullmatch(self.build_device)
        if found is None:
            raise StepError(f"--build-device is {self.build_device!r}; give cuda:N")
        return int(found[1])

    def options(self, flavour: Flavour, *, batch: int | None) -> BuildOptions:
        """The options, checked.

        Args:
            flavour: which library.
            batch: a static batch; None takes the profile, or 1.

        Raises:
            StepError: options that contradict each other or are out of range.
        """
        profile = (self.min_batch, self.opt_batch, self.max_batch)
        if batch is not None and any(size is not None for size in profile):
            raise StepError(f"--batch {batch} is a static batch; give either it or --min/--opt/--max-batch")
        if self.max_batch is None and any(size is not None for size in profile):
            raise StepError("--min-batch and --opt-batch need --max-batch beside them")
        largest = self.max_batch if self.max_batch is not None else batch if batch is not None else 1
        smallest = largest if self.max_batch is None else 1 if self.min_batch is None else self.min_batch
        targets = tuple(part.strip().lower() for part in self.target.split(",") if part.strip())
        for name in targets:
            if not _TARGET.fullmatch(name):
                raise StepError(f"--target {name!r} is no compute capability; give names such as sm86,sm89,sm120")
        options = BuildOptions(
            flavour=flavour,
            min_batch=smallest,
            opt_batch=largest if self.opt_batch is None else self.opt_batch,
            max_batch=largest,
            workspace_mb=self.workspace,
            optimization_level=self.optimization_level,
            hardware_compatible=self.hardware_compatible,
            version_compatible=self.version_compatible,
            targets=targets,
            tf32=self.tf32,
            plugins=flavour == "tensorrt" if self.plugins is None else self.plugins,
            profile_layers=self.profile_layers,
        )
        check_options(options, timing_cache=self.timing_cache)
        if self.device and flavour == "tensorrt-rtx":
            raise StepError("--build-device is for tensorrt; tensorrt-rtx builds without a GPU")
        return options


def with_build_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a click command, which receives them as `choices: BuildChoices`."""
    names = {field.name for field in dataclasses.fields(BuildChoices)}

    @functools.wraps(command)
    def gathered(**values: Any) -> None:
        choices = BuildChoices(**{name: values.pop(name) for name in names})
        command(choices=choices, **values)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), gathered)
