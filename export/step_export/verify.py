"""Parity of exported graphs with PyTorch: every graph on its own, the step loop chained, and the fused graph."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from step import Detections, StepConfig, StepDetector, StepError
from step.bundle import ParityRow
from step.graph_spec import BACKBONE, DETECT, FUSED, ExportOptions, Precision, step_graph_name
from step.models.detector import ClipFeatures, StepOutput, middle_boxes
from step.ops.box_coding import make_boxes_valid
from step.parity import TOLERANCES, Arrays, detections_apart

_SMALLEST_ERROR = 2.0**-20


def verify_graphs(
    files: dict[str, Path],
    detector: StepDetector,
    options: ExportOptions,
    *,
    score_threshold: float,
    nms_iou: float,
) -> Iterator[ParityRow]:
    """Compares every given graph with the detector in float32, clip by clip.

    Args:
        files: ONNX file of each exported graph.
        detector: the float32 detector that the checkpoint held.
        options: those of the export.
        score_threshold: baked into the graphs.
        nms_iou: baked into the graphs.

    Yields:
        One row per graph, clip and tensor. A value that is not finite never passes.
    """
    sessions = {name: _session(path) for name, path in files.items()}
    # A dynamic batch axis is tried at two sizes.
    batches = (1, 2) if options.batch is None else (options.batch, options.batch)
    for clip_name, frames in verification_clips(detector.config, batches=batches):
        check = _Check(options.precision, clip_name, score_threshold, nms_iou)
        with torch.inference_mode():
            clip = detector.extract(torch.from_numpy(frames))
            outputs = detector.run_steps(clip, num_steps=options.num_steps)
            expected = detector.select(
                outputs[-1],
                score_threshold=score_threshold,
                nms_iou=nms_iou,
                max_detections=options.max_detections,
            )
        if FUSED in sessions:
            result = _run(sessions[FUSED], {"frames": frames})
            yield check.detections(FUSED, result, expected)
            yield check.boxes(FUSED, "tubes_px", result["tubes_px"], expected.tubes_px)
        if BACKBONE in sessions:
            state = _run(sessions[BACKBONE], {"frames": frames})
            yield check.features(BACKBONE, "features", state["features"], clip.features)
            if clip.context is not None:
                yield check.features(BACKBONE, "context", state["context"], clip.context)
            yield from _verify_steps(sessions, state, clip, outputs, expected, detector, check)


def verification_clips(config: StepConfig, *, batches: tuple[int, int]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Random frames, and moving shapes on a textured ground that look more like video: uint8 [batch, F, H, W, 3]."""
    size, frames = config.image_size_px, config.clip_frames
    state = np.random.RandomState(0)
    yield "noise", state.randint(0, 256, (batches[0], frames, size, size, 3), np.uint8)
    yield "moving shapes", np.stack([_moving_shapes(state, frames, size) for _ in range(batches[1])])


def _moving_shapes(state: np.random.RandomState, frames: int, size: int) -> NDArray[np.uint8]:
    """Four rectangles that drift and grow over a smooth texture, with sensor noise."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(2 * np.pi * (state.uniform(1, 5) * x + state.uniform(1, 5) * y + phase)) for phase in (0, 0.3, 0.6)]
    ground = 110 + 50 * np.stack(waves, axis=-1)
    clip = np.repeat(ground[None], frames, axis=0)
    for _ in range(4):
        center, speed = state.uniform(0.2, 0.8, 2), state.uniform(-0.01, 0.01, 2)
        half, color = state.uniform(0.05, 0.2, 2), state.uniform(0, 255, 3)
        for frame in range(frames):
            low = np.clip((center + speed * frame - half) * size, 0, size).astype(int)
            high = np.clip((center + speed * frame + half) * size, 0, size).astype(int)
            clip[frame, low[1] : high[1], low[0] : high[0]] = color
    return (clip + state.normal(0, 4, clip.shape)).clip(0, 255).astype(np.uint8)


def _verify_steps(
    sessions: dict[str, ort.InferenceSession],
    state: Arrays,
    clip: ClipFeatures,
    outputs: list[StepOutput],
    expected: Detections[Tensor],
    detector: StepDetector,
    check: "_Check",
) -> Iterator[ParityRow]:
    """Every step's graph and the detect graph: on PyTorch's own inputs, and chained as the runtime runs them."""
    half_or_float = state["features"].dtype
    alone: Arrays = {"features": clip.features.numpy().astype(half_or_float)}
    if clip.context is not None:
        alone["context"] = clip.context.numpy().astype(half_or_float)
    alone["input_tubes_px"] = detector.initial_tubes(len(alone["features"])).numpy()
    chained = state | {"input_tubes_px": alone["input_tubes_px"]}
    for step, output in enumerate(outputs):
        name = step_graph_name(step)
        last = step + 1 == len(outputs)
        next_tubes_px = None if last else detector.next_tubes(output, step=step)
        for label, inputs in ((name, alone), (f"{name} chained", chained)):
            session = sessions[name]
            result = _run(session, {wanted.name: inputs[wanted.name] for wanted in session.get_inputs()})
            yield from _compare_step(label, result, output, next_tubes_px, detector.config, check)
            if next_tubes_px is not None:
                own = inputs is alone
                inputs["input_tubes_px"] = next_tubes_px.numpy() if own else result["next_tubes_px"]
    tubes_px = make_boxes_valid(outputs[-1].boxes_px, detector.config.image_size_px)
    own_inputs = {"class_scores": outputs[-1].scores.numpy(), "center_px": middle_boxes(tubes_px).numpy()}
    chained_inputs = {name: result[name] for name in own_inputs}
    yield check.detections(DETECT, _run(sessions[DETECT], own_inputs), expected)
    yield check.detections(f"{DETECT} chained", _run(sessions[DETECT], chained_inputs), expected)


def _compare_step(
    graph: str,
    result: Arrays,
    output: StepOutput,
    next_tubes_px: Tensor | None,
    config: StepConfig,
    check: "_Check",
) -> Iterator[ParityRow]:
    yield check.scores(graph, "class_scores", result["class_scores"], output.scores)
    for tensor in ("boxes_px", "first_px", "last_px"):
        yield check.boxes(graph, tensor, result[tensor], getattr(output, tensor))
    tubes_px = make_boxes_valid(output.boxes_px, config.image_size_px)
    yield check.boxes(graph, "tubes_px", result["tubes_px"], tubes_px)
    yield check.boxes(graph, "center_px", result["center_px"], middle_boxes(tubes_px))
    if next_tubes_px is not None:
        yield check.boxes(graph, "next_tubes_px", result["next_tubes_px"], next_tubes_px)


class _Check:
    """Makes parity rows for one clip."""

    def __init__(self, precision: Precision, clip: str, score_threshold: float, nms_iou: float) -> None:
        self._tolerance = TOLERANCES[precision]
        self._score_threshold = score_threshold
        self._nms_iou = nms_iou
        self._clip = clip

    def features(self, graph: str, tensor: str, found: NDArray[Any], expected: Tensor) -> ParityRow:
        # The least error that half precision can tell from none keeps models with vanishing features comparable.
        allowed = max(self._tolerance.features * float(expected.abs().max()), _SMALLEST_ERROR)
        return self._row(graph, tensor, found, expected.numpy(), allowed)

    def scores(self, graph: str, tensor: str, found: NDArray[Any], expected: Tensor) -> ParityRow:
        return self._row(graph, tensor, found, expected.numpy(), self._tolerance.scores)

    def boxes(self, graph: str, tensor: str, found: NDArray[Any], expected: Tensor) -> ParityRow:
        return self._row(graph, tensor, found, expected.numpy(), self._tolerance.boxes_px)

    def detections(self, graph: str, found: Arrays, expected: Detections[Tensor]) -> ParityRow:
        """Share of the detections that one side has and the other has not; see `detections_apart`."""
        names = ("boxes", "scores", "labels", "tube_indices")
        apart = [
            detections_apart(
                {name: found[name][clip] for name in names},
                {name: getattr(expected, name)[clip].numpy() for name in names},
                score_tolerance=self._tolerance.scores,
                score_threshold=self._score_threshold,
                nms_iou=self._nms_iou,
            )
            for clip in range(len(expected.counts))
        ]
        allowed = 1 - self._tolerance.rows_matched
        return ParityRow(
            graph=graph,
            clip=self._clip,
            tensor="detections apart",
            max_error=max(apart),
            mean_error=float(np.mean(apart)),
            tolerance=allowed,
            passed=max(apart) <= allowed,
        )

    def _row(self, graph: str, tensor: str, found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> ParityRow:
        error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        largest = float(error.max())  # NaN if any value is NaN
        return ParityRow(
            graph=graph,
            clip=self._clip,
            tensor=tensor,
            max_error=largest if np.isfinite(largest) else float("inf"),
            mean_error=float(error.mean()) if np.isfinite(largest) else float("inf"),
            tolerance=tolerance,
            passed=bool(largest <= tolerance),
        )


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.Fail as error:
        raise StepError(
            f"ONNX Runtime {ort.__version__} cannot load {path.name}: {str(error).splitlines()[0]}"
        ) from error


def _run(session: ort.InferenceSession, inputs: Arrays) -> Arrays:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
