"""Names, dtypes and shapes of every exported graph's inputs and outputs, in one place (torch-free).

Export names its graphs from here, the runtime binds its buffers from here, tests check one against the other.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from step.anchors import anchor_boxes
from step.config import StepConfig

Precision = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DType = Literal["uint8", "float16", "float32", "int64"]
Dim = int | str
Arrays = dict[str, NDArray[Any]]
"""A graph's inputs or outputs, by name."""
RESULTS = ("boxes", "scores", "labels", "tube_indices", "counts", "tubes_px")
"""What a detection is made of, in the order of `step.detections.Detections`."""
INPUT_TUBES_PX = "input_tubes_px"
NEXT_TUBES_PX = "next_tubes_px"
"""What a step reads, and what it writes for the next one."""

BATCH = "batch"
"""Name of the one axis that may be dynamic."""

FUSED = "fused"
BACKBONE = "backbone"
DETECT = "detect"

FEATURES = "features"
CONTEXT = "context"
"""Outputs of the backbone graph; what computes the second is a stage of its own in traces and rooflines."""

FLOAT32_ISLAND = "kept_float32"
"""Name that a module which stays float32 has inside its wrapper, and so a part of the module paths in fp16 graphs."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output; a dimension is a number, or `BATCH` where it is dynamic."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]

    def concrete_shape(self, batch: int) -> tuple[int, ...]:
        """The shape for a given batch size."""
        return tuple(batch if isinstance(dim, str) else dim for dim in self.shape)


@dataclass(frozen=True)
class GraphSpec:
    """One graph: its name (the file is `<name>.onnx`), inputs and outputs in order."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def file_name(self) -> str:
        """File in the bundle."""
        return f"{self.name}.onnx"


def is_graph_name(name: str) -> bool:
    """Whether a graph of some model is called so."""
    return name in (FUSED, BACKBONE, DETECT) or re.fullmatch(r"step[1-9][0-9]*", name) is not None


def step_graph_name(step: int) -> str:
    """Graph of a progressive step (0-based): "step1", "step2", ..."""
    return f"step{step + 1}"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What an export decides besides the model.

    Attributes:
        precision: of the networks; boxes, RoIs, sigmoid and NMS are float32 in any case.
        num_steps: progressive steps in the graphs.
        batch: clips per call, or None for a dynamic axis.
        max_detections: rows a clip, over all classes.
    """

    precision: Precision
    num_steps: int
    batch: int | None
    max_detections: int


def graph_specs(config: StepConfig, options: ExportOptions) -> dict[str, GraphSpec]:
    """Every graph that a bundle of this model can hold, by name, in the order of the step loop (fused first)."""
    batch: Dim = BATCH if options.batch is None else options.batch
    half: DType = "float16" if options.precision == "fp16" else "float32"
    size, cells = config.image_size_px, config.feature_size
    tubes = len(anchor_boxes(config.anchor_mode))
    rows = min(options.max_detections, tubes * config.num_classes)
    chunk = config.chunk_frames

    frames = TensorSpec("frames", "uint8", (batch, config.clip_frames, size, size, 3))
    features = TensorSpec(FEATURES, half, (batch, config.feature_frames, config.feature_channels, cells, cells))
    clip = [features]
    if config.context:
        clip.append(TensorSpec(CONTEXT, half, (batch, config.context_channels, config.feature_frames)))
    class_scores = TensorSpec("class_scores", "float32", (batch, tubes, config.num_classes))
    center = TensorSpec("center_px", "float32", (batch, tubes, 4))
    detections = (
        TensorSpec("boxes", "float32", (batch, rows, 4)),
        TensorSpec("scores", "float32", (batch, rows)),
        TensorSpec("labels", "int64", (batch, rows)),
        TensorSpec("tube_indices", "int64", (batch, rows)),
        TensorSpec("counts", "int64", (batch,)),
    )

    def over_time(name: str, frame_count: int) -> TensorSpec:
        return TensorSpec(name, "float32", (batch, tubes, frame_count, 4))

    last_frames = config.step_frames(options.num_steps - 1)
    specs = [
        GraphSpec(FUSED, (frames,), (*detections, over_time("tubes_px", last_frames))),
        GraphSpec(BACKBONE, (frames,), tuple(clip)),
    ]
    for step in range(options.num_steps):
        count = config.step_frames(step)
        outputs = [
            class_scores,
            over_time("boxes_px", count),
            over_time("first_px", chunk),
            over_time("last_px", chunk),
            over_time("tubes_px", count),
            center,
        ]
        if step + 1 < options.num_steps:
            outputs.append(over_time(NEXT_TUBES_PX, config.step_frames(step + 1)))
        # The context comes last, so that a model without one has the same inputs but for it.
        inputs = (features, over_time(INPUT_TUBES_PX, count), *clip[1:])
        specs.append(GraphSpec(step_graph_name(step), inputs, tuple(outputs)))
    specs.append(GraphSpec(DETECT, (class_scores, center), detections))
    return {spec.name: spec for spec in specs}
