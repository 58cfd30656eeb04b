"""A bundle for the stand-in engines: a real manifest with real specs, and engine files that say what to hash."""

import json
from dataclasses import dataclass
from pathlib import Path

from step.bundles.engines import BuildOptions, EngineRecord, EngineSet, this_platform
from step.bundles.graph_spec import ExportOptions, GraphSpec, TensorSpec, graph_specs
from step.bundles.manifest import CheckpointSource, GraphRecord, Manifest, Preprocessing, Thresholds
from step.config import CLIP_FPS, StepConfig

HEADER_WORDS = 64
"""At the beginning of an engine's scratch memory: one digest for each clip of a call."""
MOST_CLIPS = 2
VERSION = "11.4.0.106"
_WORD_BYTES = 4
_ITEM_WORDS = {"uint8": 0.25, "float16": 0.5, "float32": 1, "int64": 2}


@dataclass(frozen=True)
class SpinPlan:
    """Says what an engine file holds.

    Attributes:
        spec: the engine's inputs and outputs.
        scratch_words: that it scribbles over, without the header.
    """

    spec: GraphSpec
    scratch_words: int

    @property
    def scratch_bytes(self) -> int:
        """Counts the scratch memory that it asks for."""
        return _WORD_BYTES * (HEADER_WORDS + self.scratch_words)

    def to_bytes(self) -> bytes:
        """Writes the file's content."""
        record = GraphRecord.of(self.spec, "")
        return json.dumps([self.spec.name, self.scratch_words, record.model_dump_json()]).encode()

    @classmethod
    def from_bytes(cls, plan: bytes) -> "SpinPlan":
        """Inverts `to_bytes`."""
        name, scratch_words, record = json.loads(plan)
        return cls(GraphRecord.model_validate_json(record).spec(name), scratch_words)


def clip_words(tensor: TensorSpec) -> int:
    """Counts the 32-bit words that a tensor has for each clip."""
    words = _ITEM_WORDS[tensor.dtype]
    for side in tensor.concrete_shape(1):
        words *= side
    assert words == int(words), f"{tensor}: a clip's part is no whole number of words"
    return int(words)


def make_bundle(folder: Path, config: StepConfig, *, scratch_words: int) -> Manifest:
    """Writes engine files for every graph of a model, for one or two clips a call; exports nothing.

    Args:
        folder: where.
        config: of the model.
        scratch_words: that the smallest engine scribbles over; every other takes some more.

    Returns:
        A manifest as `step-export` and `step-build` would have written.
    """
    options = ExportOptions(precision="fp32", num_steps=config.num_steps, batch=None, max_detections=300)
    specs = graph_specs(config, options)
    plans = {name: SpinPlan(spec, scratch_words + 100 * index) for index, (name, spec) in enumerate(specs.items())}
    engines = EngineSet(
        options=BuildOptions(library="tensorrt", min_batch=1, opt_batch=MOST_CLIPS, max_batch=MOST_CLIPS),
        version=VERSION,
        platform=this_platform(),
        gpu=None,
        compute_capabilities=(),
        precision="fp32",
        engines={name: _write_engine(folder, name, plan) for name, plan in plans.items()},
    )
    return Manifest(
        model=config.to_dict(),
        classes=(),
        anchors=(),
        preprocessing=Preprocessing(
            clip_frames=config.clip_frames, fps=CLIP_FPS, key_frame_index=0, image_size_px=config.image_size_px
        ),
        precision="fp32",
        num_steps=config.num_steps,
        batch=None,
        opset=20,
        thresholds=Thresholds(score_threshold=0.01, nms_iou=0.4, max_detections=options.max_detections),
        source=CheckpointSource(file="", sha256=""),
        tools={},
        graphs={name: GraphRecord.of(spec, "") for name, spec in specs.items()},
        parity=None,
        engines={"tensorrt": engines},
    )


def _write_engine(folder: Path, name: str, plan: SpinPlan) -> EngineRecord:
    file = folder / f"{name}.engine"
    file.write_bytes(plan.to_bytes())
    return EngineRecord(
        file=file.name,
        sha256="",
        size_bytes=file.stat().st_size,
        onnx_sha256="",
        log_file="",
        log_sha256="",
        layers_file="",
        build_s=0.0,
        layers={},
        plugins=(),
        scratch_bytes=plan.scratch_bytes,
        weights_bytes=0,
    )
