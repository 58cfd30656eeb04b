"""The `fused` model of a repository: a bundle's fused graph, on Triton's TensorRT or ONNX Runtime backend.

Triton's backends bind every tensor by name, type and shape, which come from the manifest.

Source: https://github.com/triton-inference-server/tensorrt_backend, https://github.com/triton-inference-server/onnxruntime_backend
"""

from dataclasses import dataclass
from pathlib import Path

from step.bundles.engines import EngineSet, find_damage
from step.bundles.graph_spec import BATCH, FUSED, TensorSpec
from step.bundles.manifest import Manifest
from step.bundles.service_spec import DEFAULT_CLIPS_A_CALL
from step.errors import ArgumentError
from step_export.triton.model_config import ConfigTensor, Kind, ModelConfig, WarmUp


@dataclass(frozen=True)
class FusedModel:
    """What is served, and with which configuration.

    Attributes:
        source: the graph or engine in the bundle.
        config: of the model.
        notes: what whoever starts the server has to know, a line each.
    """

    source: Path
    config: ModelConfig
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Backend:
    """What runs the model: Triton's name, the file that it looks for, where it runs."""

    platform: str
    file: str
    kind: Kind


_OF_GRAPHS = _Backend("onnxruntime_onnx", "model.onnx", "KIND_AUTO")
_OF_ENGINES = _Backend("tensorrt_plan", "model.plan", "KIND_GPU")


@dataclass(frozen=True)
class _Batches:
    """Clips that a call may have: any number from 1 to `most`, or exactly `most`."""

    most: int
    is_fixed: bool
    preferred: tuple[int, ...] = ()


def choose_fused(bundle: Path, manifest: Manifest, *, batch: int | None, instances: int) -> FusedModel | None:
    """Returns the model: TensorRT's plan where one is built that Triton can load, else the ONNX graph.

    Args:
        bundle: the folder.
        manifest: of the bundle.
        batch: most clips of a call; None takes what the engine was built for, or 8.
        instances: on each device.

    Returns:
        None for a bundle without the fused graph.

    Raises:
        ArgumentError: a batch that the graph or the engine does not take.
    """
    if FUSED not in manifest.graphs:
        return None
    engines, notes = _servable(bundle, manifest)
    if engines is None:
        batches = _graph_batches(manifest, batch)
        config = _config(manifest, batches, _OF_GRAPHS, instances=instances)
        source = bundle / manifest.graphs[FUSED].file
    else:
        batches = _engine_batches(engines, batch)
        config = _config(manifest, batches, _OF_ENGINES, instances=instances)
        source = bundle / engines.engines[FUSED].file
        notes.append(
            f"fused is a plan of TensorRT {engines.version} for {engines.gpu or 'a GPU that is not known'}; Triton's "
            "container has to have that version, and that GPU"
        )
        if engines.options.version_compatible:
            notes.append("start the server with --backend-config=tensorrt,version-compatible=true")
    if batches.is_fixed:
        wider = "export with --batch dynamic" if engines is None else "build with --min-batch 1 --max-batch N"
        notes.append(
            f"fused takes exactly {batches.most} a call, so that Triton cannot put requests together; {wider} for that"
        )
    return FusedModel(source, config, tuple(notes))


def _servable(bundle: Path, manifest: Manifest) -> tuple[EngineSet | None, list[str]]:
    """Finds the engines that Triton can load, and says why those that are there are not taken."""
    notes = []
    if "tensorrt-rtx" in manifest.engines:
        notes.append("the tensorrt-rtx engines are left out: Triton has no backend for them")
    engines = manifest.engines.get("tensorrt")
    if engines is None or FUSED not in engines.engines:
        return None, notes
    options, record = engines.options, engines.engines[FUSED]
    problem = find_damage(engines, bundle)
    if problem is None and record.onnx_sha256 != manifest.graphs[FUSED].sha256:
        problem = "were built from another fused.onnx"
    if problem is None and 1 < options.min_batch < options.max_batch:
        problem = (
            f"take at least {options.min_batch} clips a call, and Triton may call with 1; build with --min-batch 1"
        )
    if problem is None:
        return engines, notes
    return None, [*notes, f"the tensorrt engines {problem}; fused is the ONNX graph instead"]


def _graph_batches(manifest: Manifest, batch: int | None) -> _Batches:
    if manifest.batch is not None:
        if batch not in (None, manifest.batch):
            raise ArgumentError(
                f"`triton_batch` is {batch}, but the graphs take {manifest.batch} clips a call; export with dynamic"
            )
        return _Batches(manifest.batch, is_fixed=True)
    most = batch or DEFAULT_CLIPS_A_CALL
    return _Batches(most, is_fixed=False, preferred=tuple(size for size in (most // 2, most) if size > 1))


def _engine_batches(engines: EngineSet, batch: int | None) -> _Batches:
    options = engines.options
    if options.min_batch == options.max_batch:
        if batch not in (None, options.max_batch):
            raise ArgumentError(
                f"`triton_batch` is {batch}, but the tensorrt engine takes exactly {options.max_batch}; build another"
            )
        return _Batches(options.max_batch, is_fixed=True)
    most = batch or options.max_batch
    if most > options.max_batch:
        raise ArgumentError(
            f"`triton_batch` is {batch}, but the tensorrt engine takes at most {options.max_batch}; build another"
        )
    preferred = sorted({size for size in (options.opt_batch, most) if 1 < size <= most})
    return _Batches(most, is_fixed=False, preferred=tuple(preferred))


def _config(manifest: Manifest, batches: _Batches, backend: _Backend, *, instances: int) -> ModelConfig:
    spec = manifest.specs[FUSED]
    inputs = tuple(_config_tensor(tensor, batches) for tensor in spec.inputs)
    sizes = (1,) if batches.is_fixed else tuple(sorted({1, batches.most}))
    return ModelConfig(
        name=FUSED,
        platform=backend.platform,
        file=backend.file,
        max_batch=0 if batches.is_fixed else batches.most,
        preferred=batches.preferred,
        inputs=inputs,
        outputs=tuple(_config_tensor(tensor, batches) for tensor in spec.outputs),
        kind=backend.kind,
        instances=instances,
        warm_ups=tuple(WarmUp(size, inputs) for size in sizes),
    )


def _config_tensor(tensor: TensorSpec, batches: _Batches) -> ConfigTensor:
    """Every tensor's first dimension is the batch, which Triton writes only where it is fixed."""
    assert tensor.shape[0] in (BATCH, batches.most)
    dims = tensor.concrete_shape(batches.most)
    dims = dims if batches.is_fixed else dims[1:]
    return ConfigTensor(tensor.name, tensor.dtype, dims, is_scalar=not dims)
