"""Reads the options of an engine build, shared by `step-build` and `step-export --engine`."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import click

from step.bundles.engines import BuildOptions, Typed, typed_options
from step.bundles.libraries import Library
from step.errors import StepError
from step.parameters import FilePath, Whole
from step_export.engines.option_checks import LARGEST_BATCH, check_options

_TARGET = re.compile(r"sm\d{2,3}")
_DEVICE = re.compile(r"cuda:(\d{1,3})")
_SIZE = Whole(1, LARGEST_BATCH)

# What is no field of `BuildOptions` of its own: sizes that depend on each other, and where and with what it is built.
_OTHERS = (
    click.option("--min-batch", type=_SIZE, help="Fewest clips a call (a profile instead of one batch size)."),
    click.option("--opt-batch", type=_SIZE, help="The batch size to tune for.  [default: --max-batch]"),
    click.option("--max-batch", type=_SIZE, help="Most clips a call."),
    click.option("--timing-cache", type=FilePath(), help="tensorrt: file of layer timings to use and extend."),
    click.option("--build-device", default="cuda:0", metavar="cuda:N", help="tensorrt: the GPU to build on and for."),
)


@dataclass(frozen=True, kw_only=True)
class BuildChoices:
    """Holds what was said on the command line; `options` makes `BuildOptions` of it.

    Attributes:
        min_batch, opt_batch, max_batch: clips a call, where a profile was asked for.
        timing_cache: file of layer timings.
        build_device: the GPU to build on, "cuda:N".
        given: values of the fields of `BuildOptions` that were given.
    """

    min_batch: int | None = None
    opt_batch: int | None = None
    max_batch: int | None = None
    timing_cache: Path | None = None
    build_device: str = "cuda:0"
    given: Mapping[str, object] = field(default_factory=dict)

    @property
    def plugins(self) -> bool | None:
        """Says whether plugins were asked for, or refused; None where nothing was said."""
        value = self.given.get("plugins")
        return None if value is None else bool(value)

    def without_plugins(self) -> "BuildChoices":
        """Returns the same, as if nothing had been said of plugins."""
        return dataclasses.replace(self, given={name: value for name, value in self.given.items() if name != "plugins"})

    @property
    def device(self) -> int:
        """Returns the index of the GPU to build on."""
        found = _DEVICE.fullmatch(self.build_device)
        if found is None:
            raise StepError(f"--build-device is {self.build_device!r}; give cuda:N")
        return int(found[1])

    def options(self, library: Library, *, batch: int | None) -> BuildOptions:
        """Returns the options, checked.

        Args:
            library: which library.
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
        for name in cast(tuple[str, ...], self.given.get("targets", ())):
            if not _TARGET.fullmatch(name):
                raise StepError(f"--target {name!r} is no compute capability; give names such as sm86,sm89,sm120")
        options = BuildOptions(
            library=library,
            min_batch=smallest,
            opt_batch=largest if self.opt_batch is None else self.opt_batch,
            max_batch=largest,
            **cast("dict[str, Any]", self.given),
        )
        check_options(options, timing_cache=self.timing_cache)
        if self.device and library == "tensorrt-rtx":
            raise StepError("--build-device is for tensorrt; tensorrt-rtx builds without a GPU")
        return options


ClickOption = Callable[[Callable[..., None]], Callable[..., None]]


def with_build_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a click command, which receives them as `choices: BuildChoices`."""
    typed = typed_options()
    others = {each.name for each in dataclasses.fields(BuildChoices)} - {"given"}

    @functools.wraps(command)
    def gathered(**values: Any) -> None:
        said = {name: values.pop(name) for name in typed}
        choices = BuildChoices(
            **{name: values.pop(name) for name in others},
            given={name: value for name, value in said.items() if value is not None},
        )
        command(choices=choices, **values)

    options: list[ClickOption] = [*_OTHERS, *(_click_option(name, each) for name, each in typed.items())]
    wrapped: Callable[..., None] = gathered
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _click_option(name: str, typed: Typed) -> ClickOption:
    """Makes an option of click for a field of `BuildOptions`; its value is None where it was not given."""
    annotation = BuildOptions.model_fields[name].annotation
    if annotation is bool:
        is_flag = "/" not in typed.flag  # one that can only be turned on
        return click.option(
            typed.flag, name, is_flag=is_flag or None, default=None, help=typed.help, show_default=False
        )
    if annotation == int | None:
        kind = Whole(typed.least or 0, math.inf if typed.most is None else typed.most)
        return click.option(typed.flag, name, type=kind, metavar=typed.metavar, help=typed.help)
    return click.option(typed.flag, name, callback=_parse_names, metavar=typed.metavar, help=typed.help)


def _parse_names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    names = tuple(part.strip().lower() for part in (value or "").split(",") if part.strip())
    return names or None
