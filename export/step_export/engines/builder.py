"""Builds one TensorRT engine of one ONNX graph, with either library; runs in the build process.

Sources: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/BuilderConfig.html,
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/parsers/Onnx/pyOnnx.html and the RTX pages of
the same names.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import step_plugins

from step.bundles.build_process import PluginsRefusedError
from step.bundles.engines import BuildOptions
from step.bundles.libraries import library_logger, listening, needs_typing_flag
from step.errors import ArgumentError, StepError
from step.files.atomic import atomic_path
from step_export.engines.monitor import make_monitor

_SCRATCH = re.compile(r"Total Activation Memory: (\d+)")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+)")

Log = list[tuple[str, str]]
"""Severity and text of every message of the library, in order."""


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """Holds what came out of a build; see `step.bundles.engines.EngineRecord` for the fields."""

    plan: memoryview
    build_s: float
    layers: tuple[tuple[str, str], ...]  # type and name of every layer of the network
    plugins: tuple[str, ...]
    scratch_bytes: int | None
    weights_bytes: int | None


def build_engine(
    trt: Any,
    onnx_file: Path,
    options: BuildOptions,
    *,
    log: Log,
    timing_cache: Path | None = None,
    mark_outputs: tuple[str, ...] = (),
    report: Callable[[str, float], None] = lambda _phase, _fraction: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> BuiltEngine | None:
    """Parses a graph and builds its engine.

    Args:
        trt: the library of `options.library`.
        onnx_file: a graph of a bundle.
        options: how to build.
        log: receives the library's messages.
        timing_cache: tensorrt: read where it exists, and written.
        mark_outputs: further tensors that the engine is to give out, by name.
        report: see `make_monitor`.
        cancelled: see `make_monitor`.

    Returns:
        The engine, or None if the build was cancelled.

    Raises:
        PluginsRefusedError: the library does not take a plugin that `options` ask for.
        ArgumentError: an argument does not fit the graph, the library or the GPU.
        StepError: the graph cannot be parsed or built.
    """
    with listening(trt, lambda severity, message: log.append((severity, message))):
        return _build(
            trt,
            onnx_file,
            options,
            log=log,
            timing_cache=timing_cache,
            mark_outputs=mark_outputs,
            monitor=make_monitor(trt, report, cancelled),
            cancelled=cancelled,
        )


def _build(
    trt: Any,
    onnx_file: Path,
    options: BuildOptions,
    *,
    log: Log,
    timing_cache: Path | None,
    mark_outputs: tuple[str, ...],
    monitor: Any,
    cancelled: Callable[[], bool],
) -> BuiltEngine | None:
    logger = library_logger(trt)
    builder = _make_builder(trt, options, log)
    if options.plugins:
        _register_plugins(trt)
    network = _parse(trt, builder, logger, onnx_file, options)
    _mark(network, mark_outputs, onnx_file)
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    _configure(trt, config, options)
    _set_batch(builder, network, config, options)
    cache = _read_timing_cache(config, timing_cache) if timing_cache is not None else None
    start_s = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        if cancelled():
            return None
        why = _last_error(log)
        raise ArgumentError(
            f"{options.library} {trt.__version__} could not build {onnx_file.name}: {why}{_advice(why)}"
        )
    if timing_cache is not None and cache is not None:
        with atomic_path(timing_cache) as path:
            path.write_bytes(memoryview(cache.serialize()))
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    text = "\n".join(message for _, message in log)
    return BuiltEngine(
        plan=memoryview(plan),
        build_s=time.monotonic() - start_s,
        layers=tuple((layer.type.name, layer.name) for layer in layers),
        plugins=tuple(sorted({layer.name for layer in layers if layer.type.name.startswith("PLUGIN")})),
        scratch_bytes=_logged_bytes(_SCRATCH, text),
        weights_bytes=_logged_bytes(_WEIGHTS, text),
    )


def count_layers(engine: BuiltEngine) -> dict[str, int]:
    """Counts the layers of each type, most frequent first."""
    return dict(Counter(kind for kind, _ in engine.layers).most_common())


def _make_builder(trt: Any, options: BuildOptions, log: Log) -> Any:
    try:
        return trt.Builder(library_logger(trt))
    except (TypeError, RuntimeError) as error:  # the bindings' word for a builder that the library did not make
        raise ArgumentError(
            f"{options.library} {trt.__version__} cannot build here ({_last_error(log)}); it needs an NVIDIA GPU and "
            "driver, tensorrt-rtx builds without: `library` tensorrt-rtx"
        ) from error


def _register_plugins(trt: Any) -> None:
    """Registers our plugins: without, the parser takes the function bodies of the nodes that name them."""
    try:
        step_plugins.register(trt)
    except step_plugins.PluginError as error:
        raise PluginsRefusedError(str(error)) from error


def _parse(trt: Any, builder: Any, logger: Any, onnx_file: Path, options: BuildOptions) -> Any:
    flags = 0
    if needs_typing_flag(options.library, trt.__version__):
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        if options.plugins and errors and errors[0].node_operator() in step_plugins.OPERATORS:
            raise PluginsRefusedError(_plugin_message(f"{options.library} {trt.__version__}", errors[0]))
        raise StepError(_parser_message(f"{options.library} {trt.__version__}", onnx_file, errors))
    return network


def _plugin_message(library: str, error: Any) -> str:
    why = " ".join(error.desc().split()).rstrip(".")
    return f"{library} does not take step::{error.node_operator()} as a plugin ({why})"


def _parser_message(library: str, onnx_file: Path, errors: list[Any]) -> str:
    """Says which node, which operator, why, and what to try."""
    if not errors:
        return f"{library} cannot read {onnx_file}: it is not an ONNX file; export the bundle again"
    error = errors[0]
    node = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else "the file"
    inside = [name for name in error.local_function_stack() if name]
    where = f", inside {' > '.join(inside)}" if inside else ""
    # An operator that the parser does not know is looked for among the plugins.
    unsupported = "UNSUPPORTED" in str(error.code()).upper() or "plugin" in error.desc().lower()
    advice = (
        "that operator is missing in this version: a later one may have it, or run the graph with "
        "step-run --backend onnxruntime"
        if unsupported
        else "export the bundle again with this version of step-trt"
    )
    why = error.desc().rstrip(".")
    more = f" ({len(errors) - 1} further errors)" if len(errors) > 1 else ""
    return f"{library} cannot take {onnx_file.name}: {node}{where}: {why}{more}; {advice}"


def _mark(network: Any, names: tuple[str, ...], onnx_file: Path) -> None:
    if not names:
        return
    layers = (network.get_layer(index) for index in range(network.num_layers))
    outputs = (layer.get_output(index) for layer in layers for index in range(layer.num_outputs))
    tensors = {tensor.name: tensor for tensor in outputs if tensor is not None}
    own = {network.get_output(index).name for index in range(network.num_outputs)}
    for name in (name for name in names if name not in own):
        if name not in tensors:
            raise StepError(f"{onnx_file.name} has no tensor {name!r} that an engine could give out")
        network.mark_output(tensors[name])


def _configure(trt: Any, config: Any, options: BuildOptions) -> None:
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.profile_layers:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
        for index, target in enumerate(options.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # tensorrt-rtx: contexts then live in the memory that they are given, which CUDA graphs need.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)


def _set_batch(builder: Any, network: Any, config: Any, options: BuildOptions) -> None:
    """Makes a static batch part of the shapes, a range of batches a profile; a graph exported static has neither."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if options.min_batch == options.max_batch:
        for tensor in inputs:
            tensor.shape = _with_batch(tensor.shape, options.opt_batch)
        return
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        batches = (options.min_batch, options.opt_batch, options.max_batch)
        profile.set_shape(tensor.name, *(_with_batch(tensor.shape, batch) for batch in batches))
    config.add_optimization_profile(profile)


def _with_batch(shape: Any, batch: int) -> tuple[int, ...]:
    return tuple(batch if side < 0 else side for side in shape)


def _read_timing_cache(config: Any, path: Path) -> Any:
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise ArgumentError(
            f"`timing_cache` {path}: not a timing cache of this GPU and version; remove it or name another"
        )
    return cache


def _last_error(log: Log) -> str:
    """Returns the library's first complaint, the cause; what follows are its consequences."""
    errors = [message for severity, message in log if severity in ("ERROR", "INTERNAL_ERROR")]
    telling = [message for message in errors if "Thread context" not in message]  # RTX says this of every build
    return " ".join((telling or errors or ["it gave no reason"])[0].split())


def _advice(why: str) -> str:
    if "workspace" in why.lower():
        return "; give a larger `workspace_mb`, or leave it out"
    if "nvinfer_lean" in why:
        return "; `version_compatible` needs TensorRT's lean runtime: pip install tensorrt-lean"
    return ""


def _logged_bytes(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None
