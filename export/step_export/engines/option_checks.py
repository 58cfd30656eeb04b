"""Checks the options of an engine build, by themselves and against the library."""

from pathlib import Path
from typing import Any

from step.bundles.engines import BuildOptions, Typed, typed_options
from step.bundles.libraries import load_library
from step.errors import ArgumentError, StepError

LARGEST_BATCH = 1024
_TURING = "SM75"  # has no kernels for 3D convolutions in tensorrt-rtx


def check_options(options: BuildOptions, *, timing_cache: Path | None = None) -> None:
    """Refuses options that contradict each other.

    Raises:
        StepError: which one, its value, what to do.
    """
    if not 1 <= options.min_batch <= options.opt_batch <= options.max_batch <= LARGEST_BATCH:
        raise StepError(
            f"batch sizes are {options.min_batch}, {options.opt_batch}, {options.max_batch} (min, opt, max); "
            f"they must be 1 to {LARGEST_BATCH} and in that order"
        )
    if timing_cache is not None and timing_cache.is_dir():
        raise ArgumentError(f"`timing_cache` {timing_cache} is a folder; name a file")
    if len(set(options.targets)) != len(options.targets):
        raise ArgumentError(f"`targets` {','.join(options.targets)} names one twice")
    defaults = BuildOptions(library=options.library)
    for name, typed in typed_options().items():
        value = getattr(options, name)
        if value == getattr(defaults, name):
            continue
        if typed.only not in (None, options.library):
            raise ArgumentError(f"`{name}` is for {typed.only}; {typed.instead}")
        _check_bounds(name, typed, value)
    if timing_cache is not None and options.library == "tensorrt-rtx":
        raise ArgumentError("`timing_cache` is for tensorrt; tensorrt-rtx times nothing when it builds")


def _check_bounds(name: str, typed: Typed, value: object) -> None:
    if typed.least is None or not isinstance(value, int):
        return
    if value < typed.least or (typed.most is not None and value > typed.most):
        bounds = f"at least {typed.least}" if typed.most is None else f"{typed.least} to {typed.most}"
        raise ArgumentError(f"`{name}` is {value}; it must be {bounds}{typed.unit}")


def load_for_build(options: BuildOptions) -> Any:
    """Loads the TensorRT library that is to build.

    Raises:
        StepError: it is not installed, or it cannot build for the GPUs that `options` name.
    """
    trt = load_library(options.library)
    if options.targets:
        known = [name.lower() for name in trt.ComputeCapability.__members__ if "SM" in name and name != _TURING]
        for target in options.targets:
            if target not in known:
                raise ArgumentError(
                    f"`targets` {target}: {options.library} {trt.__version__} builds this model for {', '.join(known)}"
                )
    return trt
