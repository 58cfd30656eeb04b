"""Engines for the fake library in a bundle."""

from pathlib import Path
from typing import TypedDict, Unpack

from fake_gpu.cuda import GPU
from fake_gpu.tensorrt import VERSION
from step.bundles.engines import BuildOptions, EngineRecord, EngineSet, this_platform
from step.bundles.graph_spec import Precision
from step.bundles.libraries import Library
from step.bundles.manifest import read_bundle, write_manifest
from step.files.atomic import sha256


class EngineChanges(TypedDict, total=False):
    """Says what is not as it would be on this machine; the fields are those of `BuildOptions` and `EngineSet`."""

    min_batch: int
    opt_batch: int
    max_batch: int
    hardware_compatible: bool
    version_compatible: bool
    targets: tuple[str, ...]
    version: str
    platform: str
    compute_capabilities: tuple[str, ...]


def add_fake_engines(bundle: Path, library: Library = "tensorrt", **changes: Unpack[EngineChanges]) -> None:
    """Enters engines into a bundle's manifest whose files name the bundle's own graphs."""
    manifest = read_bundle(bundle)
    folder = bundle / "engines" / f"{library}-00000000"
    folder.mkdir(parents=True, exist_ok=True)
    records = {}
    for name, graph in manifest.graphs.items():
        path = folder / f"{name}.engine"
        path.write_text(f"{bundle / graph.file}|{changes.get('max_batch', 1)}")
        records[name] = _record(path, bundle, graph.sha256)
    engines = _engine_set(library, records, manifest.precision, changes)
    write_manifest(manifest.model_copy(update={"engines": {**manifest.engines, library: engines}}), bundle)


def _record(path: Path, bundle: Path, onnx_sha256: str) -> EngineRecord:
    return EngineRecord(
        file=str(path.relative_to(bundle)),
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        onnx_sha256=onnx_sha256,
        log_file="",
        log_sha256="",
        layers_file="",
        build_s=0.0,
        layers={},
        plugins=(),
        scratch_bytes=1000,
        weights_bytes=0,
    )


def _engine_set(
    library: Library, records: dict[str, EngineRecord], precision: Precision, changes: EngineChanges
) -> EngineSet:
    options = {"library": library} | {k: v for k, v in changes.items() if k in BuildOptions.model_fields}
    return EngineSet(
        options=BuildOptions.model_validate(options),
        engines=records,
        precision=precision,
        version=changes.get("version", VERSION),
        platform=changes.get("platform", this_platform()),
        gpu=GPU.name,
        compute_capabilities=changes.get("compute_capabilities", (GPU.capability,)),
    )
