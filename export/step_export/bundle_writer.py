"""Exports a checkpoint to a bundle folder."""

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import onnx.inliner
import onnxruntime as ort
import torch
from filelock import FileLock, Timeout

from step import StepDetector, StepError, load_checkpoint
from step.anchors import anchor_boxes
from step.bundles.graph_spec import FUSED, ExportOptions, Precision, graph_specs
from step.bundles.manifest import (
    ENGINES_LOCK,
    MANIFEST,
    CheckpointSource,
    ClassRecord,
    GraphRecord,
    Manifest,
    ParityRow,
    Preprocessing,
    Thresholds,
    find_foreign,
    write_manifest,
)
from step.checkpoints.toy_model import find_checkpoint
from step.clips import check_thresholds
from step.errors import ArgumentError
from step.files.atomic import atomic_path, sha256
from step.models.graphs import graph_modules
from step.revision import project_version
from step_export.graphs.fold_batch_norm import fold_batch_norm
from step_export.graphs.fold_padding import fold_padding
from step_export.graphs.join import join_graphs
from step_export.graphs.onnx_export import export_graph
from step_export.graphs.verify import verify_graphs

GraphChoice = Literal["fused", "steps", "all"]
OPSETS = range(18, 24)
DEFAULT_OPSET = 20


class ParityError(StepError):
    """The exported graphs differ from PyTorch by more than their tolerance; no bundle was written."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Says what to export and how.

    Attributes:
        precision: of the networks.
        graphs: the fused graph, the graphs of the step loop, or both.
        num_steps: progressive steps to export; None for all.
        batch: clips per call; None for a dynamic axis.
        opset: version of the standard ONNX operators.
        score_threshold: baked in; in [0, 1).
        nms_iou: baked in; in (0, 1].
        max_detections: rows a clip.
        verify: compare with PyTorch and refuse to write what differs.
        keep_fp32: patterns of modules that stay float32 in an fp16 export, see `StepDetector.half_networks`.
        plugins: the custom operators stay nodes that a plugin can run; else only their standard operators are written.
    """

    precision: Precision = "fp32"
    graphs: GraphChoice = "all"
    num_steps: int | None = None
    batch: int | None = None
    opset: int = DEFAULT_OPSET
    score_threshold: float = 0.01
    nms_iou: float = 0.4
    max_detections: int = 300
    verify: bool = True
    keep_fp32: tuple[str, ...] = ()
    plugins: bool = True

    @property
    def thresholds(self) -> Thresholds:
        """Returns the thresholds as the manifest holds them."""
        return Thresholds(
            score_threshold=self.score_threshold, nms_iou=self.nms_iou, max_detections=self.max_detections
        )


def export_bundle(
    checkpoint: str | Path,
    bundle: str | Path,
    settings: ExportSettings,
    *,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _message: None,
) -> Manifest:
    """Exports a checkpoint; the bundle appears only when all of it is written and verified.

    Args:
        checkpoint: see `step.load_checkpoint`.
        bundle: folder to write.
        settings: what to export.
        overwrite: whether an older bundle there is replaced; any other folder is left alone.
        progress: is called with what is being done.

    Returns:
        The manifest, with the parity report in it.

    Raises:
        ParityError: parity beyond the tolerance.
        ArgumentError: a setting out of range, or an older bundle.
        StepError: a bad checkpoint, or nowhere to write.
    """
    checkpoint, bundle = find_checkpoint(checkpoint), Path(bundle)
    _check_settings(settings)
    _check_replaceable(bundle, overwrite=overwrite)
    with _nobody_builds_in(bundle):
        pass  # for before long work
    progress(f"loading {checkpoint.name}")
    detector = load_checkpoint(checkpoint)
    _check_finite(detector, checkpoint)
    options = _graph_options(detector, settings)
    with contextlib.ExitStack() as held, atomic_path(bundle) as folder:
        folder.mkdir()
        files = _write_graphs(detector, options, settings, folder, progress)
        parity = _verify(files, detector, options, settings.thresholds, progress) if settings.verify else None
        source = CheckpointSource(file=checkpoint.name, sha256=sha256(checkpoint))
        manifest = _make_manifest(detector, options, settings, files, source, parity)
        write_manifest(manifest, folder)
        held.enter_context(_nobody_builds_in(bundle))
        _check_nothing_foreign(bundle)  # all of the older one goes, and it was a while ago
    return manifest


def _graph_options(detector: StepDetector, settings: ExportSettings) -> ExportOptions:
    most = detector.config.num_steps
    num_steps = most if settings.num_steps is None else settings.num_steps
    if not 1 <= num_steps <= most:
        raise ArgumentError(f"`num_steps` is {num_steps}; this checkpoint has 1 to {most}")
    return ExportOptions(
        precision=settings.precision,
        num_steps=num_steps,
        batch=settings.batch,
        max_detections=settings.max_detections,
    )


def _make_manifest(
    detector: StepDetector,
    options: ExportOptions,
    settings: ExportSettings,
    files: dict[str, Path],
    source: CheckpointSource,
    parity: tuple[ParityRow, ...] | None,
) -> Manifest:
    config = detector.config
    specs = graph_specs(config, options)
    return Manifest(
        model=config.to_dict(),
        classes=tuple(ClassRecord(id=i, name=config.class_name(i)) for i in config.class_ids),
        anchors=tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in anchor_boxes(config.anchor_mode).tolist()),
        preprocessing=Preprocessing.of(config),
        precision=settings.precision,
        num_steps=options.num_steps,
        batch=settings.batch,
        opset=settings.opset,
        thresholds=settings.thresholds,
        source=source,
        tools=tool_versions(),
        graphs={name: GraphRecord.of(specs[name], sha256(path)) for name, path in files.items()},
        parity=parity,
        keep_fp32=settings.keep_fp32,
    )


def tool_versions() -> dict[str, str]:
    """Returns the versions of what a bundle is made with, by distribution; those that nobody knows are left out."""
    versions = {"step-trt": project_version()}
    for name in ("torch", "onnx", "onnxscript"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # put there without being installed
            versions[name] = importlib.metadata.version(name)
    return versions | {"onnxruntime": ort.__version__}  # its distribution has several names


@contextlib.contextmanager
def _nobody_builds_in(bundle: Path) -> Iterator[None]:
    """Keeps engines from being built in an older bundle; they would go with it."""
    if not bundle.is_dir():
        yield
        return
    lock = FileLock(bundle / ENGINES_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StepError(
            f"{bundle}: is not replaced, because engines are being built in it; wait for step-build or end it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_replaceable(bundle: Path, *, overwrite: bool) -> None:
    if bundle.exists() and not (bundle / MANIFEST).is_file():
        raise StepError(f"{bundle}: exists and is not a bundle, so it is not replaced; choose another folder")
    _check_nothing_foreign(bundle)
    if bundle.exists() and not overwrite:
        raise ArgumentError(f"{bundle}: a bundle is there already; replace it with `overwrite`, or name another folder")


def _check_nothing_foreign(bundle: Path) -> None:
    foreign = find_foreign(bundle) if bundle.exists() else None
    if foreign is not None:
        raise StepError(f"{bundle}: is not replaced, because {foreign} is none of a bundle's files; move it away first")


def _check_settings(settings: ExportSettings) -> None:
    try:
        check_thresholds(
            score_threshold=settings.score_threshold,
            nms_iou=settings.nms_iou,
            max_detections=settings.max_detections,
        )
    except ValueError as error:
        raise StepError(str(error)) from error
    if settings.opset not in OPSETS:
        raise ArgumentError(f"`opset` is {settings.opset}; it must be {OPSETS.start} to {OPSETS.stop - 1}")
    if settings.batch is not None and settings.batch < 1:
        raise ArgumentError(f"`batch` is {settings.batch}; it must be at least 1, or dynamic")
    if settings.keep_fp32 and settings.precision != "fp16":
        raise ArgumentError(f"`keep_fp32` {settings.keep_fp32[0]!r} needs `precision` fp16; fp32 is float32 anyway")


def _check_finite(detector: StepDetector, checkpoint: Path) -> None:
    for name, value in detector.state_dict().items():
        if not torch.isfinite(value).all():
            raise StepError(f"{checkpoint}: {name} holds values that are not finite; the training diverged?")


def _write_graphs(
    detector: StepDetector,
    options: ExportOptions,
    settings: ExportSettings,
    folder: Path,
    progress: Callable[[str], None],
) -> dict[str, Path]:
    folded = fold_batch_norm(detector)
    if settings.precision == "fp16":
        folded.half_networks(settings.keep_fp32)
    specs = graph_specs(detector.config, options)
    modules = graph_modules(folded, options, score_threshold=settings.score_threshold, nms_iou=settings.nms_iou)
    parts = [name for name in specs if name != FUSED]
    models: dict[str, onnx.ModelProto] = {}
    for index, name in enumerate(parts, 1):
        progress(f"exporting {specs[name].file_name} ({index}/{len(parts)})")
        models[name] = export_graph(modules[name], specs[name], config=detector.config, opset=settings.opset)
        fold_padding(models[name])
    if settings.graphs != "steps":
        progress(f"joining them to {specs[FUSED].file_name}")
        models[FUSED] = join_graphs(models, specs[FUSED], config=detector.config, num_steps=options.num_steps)
    files: dict[str, Path] = {}
    for name in specs:  # the fused graph first
        if settings.graphs == "all" or (name == FUSED) == (settings.graphs == "fused"):
            model = models[name] if settings.plugins else onnx.inliner.inline_local_functions(models[name])
            files[name] = folder / specs[name].file_name
            onnx.save(model, files[name])
    return files


def _verify(
    files: dict[str, Path],
    detector: StepDetector,
    options: ExportOptions,
    thresholds: Thresholds,
    progress: Callable[[str], None],
) -> tuple[ParityRow, ...]:
    progress("verifying against PyTorch")
    rows: list[ParityRow] = []
    for row in verify_graphs(files, detector, options, thresholds=thresholds):
        progress(f"verifying against PyTorch: {row.graph} on {row.clip}")
        rows.append(row)
    failed = [row for row in rows if not row.passed]
    if failed:
        first = failed[0]
        raise ParityError(
            f"the exported {first.graph} differs from PyTorch: {first.tensor} off by {first.max_error:.3g} on "
            f"{first.clip!r}, tolerance {first.tolerance:.3g} ({len(failed)} comparisons beyond theirs); "
            "nothing written"
        )
    return tuple(rows)
