"""The bundle: a folder of ONNX graphs and the manifest that says what they are (torch-free).

Written by `step_export`, read by `step_runtime`; this file is the only definition of `manifest.json`.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from step.bundles.engines import ENGINES, EngineSet, find_foreign_engine, is_engine_path
from step.bundles.graph_spec import (
    FUSED,
    Dim,
    DType,
    ExportOptions,
    GraphSpec,
    Precision,
    TensorSpec,
    graph_specs,
    is_graph_name,
)
from step.bundles.libraries import Library
from step.bundles.records import Record
from step.config import CLIP_FPS, StepConfig
from step.errors import StepError
from step.files.atomic import atomic_path, sha256
from step.files.json_files import read_json
from step.files.scratch import is_scratch_name, recover
from step.nearest import did_you_mean
from step.shown import quoted

SCHEMA_VERSION = 2
_READABLE = (1, 2)  # the first had no engines
MANIFEST = "manifest.json"
PACKAGED = "toy"
"""Stands for the model that comes with the package; see `step.checkpoints.toy_model`."""
ENGINES_LOCK = ".engines.lock"
"""Stays in the bundle: a lock that is removed can be held twice."""


class TensorRecord(Record):
    """A graph input or output; a dimension given as a word is dynamic."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]


class GraphRecord(Record):
    """One ONNX file: its content hash and interface."""

    file: str
    sha256: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    dynamic_axes: dict[str, list[int]]

    @classmethod
    def of(cls, spec: GraphSpec, digest: str) -> Self:
        """The record of a graph that was written with this spec."""
        tensors = (*spec.inputs, *spec.outputs)
        dynamic = {t.name: [axis for axis, dim in enumerate(t.shape) if isinstance(dim, str)] for t in tensors}
        return cls(
            file=spec.file_name,
            sha256=digest,
            inputs=tuple(TensorRecord(name=t.name, dtype=t.dtype, shape=t.shape) for t in spec.inputs),
            outputs=tuple(TensorRecord(name=t.name, dtype=t.dtype, shape=t.shape) for t in spec.outputs),
            dynamic_axes={name: axes for name, axes in dynamic.items() if axes},
        )

    def spec(self, name: str) -> GraphSpec:
        """The interface as the typed spec."""
        return GraphSpec(
            name,
            tuple(TensorSpec(t.name, t.dtype, t.shape) for t in self.inputs),
            tuple(TensorSpec(t.name, t.dtype, t.shape) for t in self.outputs),
        )


class ClassRecord(Record):
    """A score column's class."""

    id: int
    name: str


class Preprocessing(Record):
    """What the caller does to a video before a graph sees it; normalisation is inside the graphs."""

    clip_frames: int
    fps: int
    key_frame_index: int
    image_size_px: int
    resize: str = "bilinear (cv2.INTER_LINEAR), aspect ratio not kept"
    color: str = "RGB"
    layout: str = "B, F, H, W, C"
    dtype: str = "uint8"
    normalisation: str = "inside the graph: x * 2 / 255 - 1"

    @classmethod
    def of(cls, config: StepConfig) -> Self:
        """What a model wants."""
        return cls(
            clip_frames=config.clip_frames,
            fps=CLIP_FPS,
            key_frame_index=config.clip_frames // 2 - 1,
            image_size_px=config.image_size_px,
        )


class Thresholds(Record):
    """Baked into the fused and detect graphs."""

    score_threshold: float
    nms_iou: float
    max_detections: int


DEFAULT_THRESHOLDS = Thresholds(score_threshold=0.01, nms_iou=0.4, max_detections=300)
"""Those of `StepDetector.detect` and of `step-export`."""


class CheckpointSource(Record):
    """The checkpoint that a bundle was exported from."""

    file: str
    sha256: str


class ParityRow(Record):
    """One comparison of a graph's output against PyTorch."""

    graph: str
    clip: str
    tensor: str
    max_error: float
    mean_error: float
    tolerance: float
    passed: bool


class Manifest(Record):
    """`manifest.json`."""

    schema_version: int = SCHEMA_VERSION
    model: dict[str, Any]
    classes: tuple[ClassRecord, ...]
    anchors: tuple[tuple[float, float, float, float], ...]
    preprocessing: Preprocessing
    precision: Precision
    num_steps: int
    batch: int | None
    opset: int
    thresholds: Thresholds
    source: CheckpointSource
    tools: dict[str, str]
    graphs: dict[str, GraphRecord]
    parity: tuple[ParityRow, ...] | None
    engines: dict[Library, EngineSet] = Field(default_factory=dict)
    keep_fp32: tuple[str, ...] = ()  # patterns of modules that an fp16 export kept float32

    @property
    def config(self) -> StepConfig:
        """The model's architecture."""
        return StepConfig.from_dict(self.model)

    @property
    def specs(self) -> dict[str, GraphSpec]:
        """Interfaces of the bundle's graphs, by name, in the order of the step loop (fused first)."""
        return {name: record.spec(name) for name, record in self.graphs.items()}

    @property
    def options(self) -> ExportOptions:
        """What the export decided."""
        return ExportOptions(
            precision=self.precision,
            num_steps=self.num_steps,
            batch=self.batch,
            max_detections=self.thresholds.max_detections,
        )


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes `manifest.json`, in one step where an older one is replaced."""
    with atomic_path(folder / MANIFEST) as path:
        path.write_text(manifest.model_dump_json(indent=1, by_alias=True) + "\n")


def read_bundle(folder: Path) -> Manifest:
    """Reads and checks a bundle: schema, and that every file is there with the content that was exported.

    A bundle that is replaced meanwhile is read again.

    Raises:
        StepError: no bundle, a newer schema, or a missing or changed file.
    """
    while True:
        if not folder.exists():
            recover(folder)
        before = _state(folder)
        try:
            return _read(folder)
        except StepError:
            if _state(folder) == before:
                raise


def no_such_model(path: Path) -> StepError:
    """Makes the error for a bundle or checkpoint that is not there; it offers the nearest that is."""
    models = (each for each in path.parent.glob("*") if each.suffix == ".pth" or (each / MANIFEST).is_file())
    near = did_you_mean(str(path), (PACKAGED, *map(str, models)))
    if path.suffix == ".pth":
        return StepError(f"{path}: no such file{near or '; give the path of a checkpoint, or a bundle'}")
    return StepError(f"{path}: no such bundle{near or f'; make one with: step-export model.pth -o {path}'}")


def find_foreign(folder: Path) -> Path | None:
    """The first thing in a bundle that neither an export, a build nor a run put there; links are not followed."""
    for path in sorted(folder.iterdir()):
        if path.name == ENGINES and path.is_dir() and not path.is_symlink():
            foreign = find_foreign_engine(path)
            if foreign is not None:
                return foreign
        elif not is_scratch_name(path.name):
            is_ours = path.name in (MANIFEST, ENGINES, ENGINES_LOCK)
            is_ours = is_ours or (path.suffix == ".onnx" and is_graph_name(path.stem))
            if not is_ours or (path.is_dir() and not path.is_symlink()):
                return path
    return None


def _state(folder: Path) -> tuple[int, int] | None:
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not folder.exists():
        raise no_such_model(folder)
    if not path.is_file():
        raise StepError(f"{folder}: not a bundle (no {MANIFEST}); make one with: step-export model.pth -o {folder}")
    try:
        raw = read_json(path, advice="export the bundle again")
        version = raw["schema_version"]
    except (KeyError, TypeError) as error:
        raise StepError(f"{path}: is damaged: it states no schema version; export the bundle again") from error
    if type(version) is not int or version not in _READABLE:
        raise StepError(
            f"{path}: bundle schema version {version!r}, this step-trt reads {' and '.join(map(str, _READABLE))}; "
            "upgrade step-trt or export the bundle again"
        )
    try:
        manifest = Manifest.model_validate(raw)
        if not 1 <= manifest.num_steps <= manifest.config.num_steps:
            raise StepError(f"{path}: num_steps is {manifest.num_steps}; export the bundle again")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StepError(f"{path}: {where}: {first['msg']}; export the bundle again") from error
    _check_statements(manifest, path)
    _check_graphs(manifest, path)
    for record in manifest.graphs.values():
        _check_file(folder / record.file, record.sha256)
    return manifest


def _check_statements(manifest: Manifest, path: Path) -> None:
    """What is said twice has to be the same: of the model, and for whoever reads the manifest alone."""
    config = manifest.config
    if manifest.preprocessing != Preprocessing.of(config):
        raise StepError(f"{path}: preprocessing contradicts the model it states; export the bundle again")
    if tuple(record.id for record in manifest.classes) != config.class_ids:
        raise StepError(f"{path}: classes are not those of the model it states; export the bundle again")
    for name, record in manifest.graphs.items():
        if record.file != f"{name}.onnx":
            raise StepError(
                f"{path}: the file of graph {name!r} is {quoted(record.file)}; it has to be {name}.onnx; "
                "export the bundle again"
            )
    for engines in manifest.engines.values():
        for engine in engines.engines.values():
            if not is_engine_path(engine.file):
                raise StepError(
                    f"{path}: an engine's file is {quoted(engine.file)}, where no build writes one; build them again"
                )


def _check_graphs(manifest: Manifest, path: Path) -> None:
    """The stated graphs have to be those of the stated model."""
    specs = graph_specs(manifest.config, manifest.options)
    for name, record in manifest.graphs.items():
        if name not in specs or record.spec(name) != specs[name]:
            raise StepError(f"{path}: graph {name!r} does not fit the model it states; export the bundle again")
    steps = [name for name in specs if name != FUSED]
    if not manifest.graphs or (set(manifest.graphs) & set(steps) and not set(steps) <= set(manifest.graphs)):
        missing = next((name for name in specs if name not in manifest.graphs), FUSED)
        raise StepError(f"{path}: graph {missing!r} is missing; export the bundle again")


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise StepError(f"{path}: the bundle's manifest names this file but it is missing; export the bundle again")
    found = sha256(path)
    if found != digest:
        raise StepError(
            f"{path}: changed since it was exported (sha256 {found[:12]}..., manifest says {digest[:12]}...); "
            "export the bundle again"
        )
