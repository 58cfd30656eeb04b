"""Parity of exported graphs with PyTorch: every graph on its own, the step loop chained, and the fused graph.

ONNX Runtime on a CPU computes half operators in float32 and drops the casts between them
(https://github.com/microsoft/onnxruntime/issues/11831). An fp16 graph is therefore compared in a form that has every
half result's rounding written into it; sums inside an operator are float32 there, as they are on a GPU's tensor cores.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from step import StepConfig, StepDetector, StepError
from step.bundles.graph_edits import make_float, round_halves
from step.bundles.graph_spec import BACKBONE, DETECT, FUSED, ExportOptions, Precision, step_graph_name
from step.bundles.manifest import ParityRow, Thresholds
from step.bundles.onnx_files import load_onnx, one_line, onnxruntime_failures
from step.models.detector import ClipFeatures, StepOutput, middle_boxes
from step.ops.box_coding import make_boxes_valid
from step.parity.check import ParityCheck
from step.parity.synthetic_clips import verification_clips
from step.parity.tolerances import Arrays


def verify_graphs(
    files: dict[str, Path],
    detector: StepDetector,
    options: ExportOptions,
    *,
    thresholds: Thresholds,
) -> Iterator[ParityRow]:
    """Compares every given graph with the detector in float32, clip by clip.

    Args:
        files: ONNX file of each exported graph.
        detector: the float32 detector that the checkpoint held.
        options: those of the export.
        thresholds: baked into the graphs.

    Yields:
        One row per graph, clip and tensor. A value that is not finite never passes.
    """
    sessions = {name: _session(path, options.precision) for name, path in files.items()}
    # A dynamic batch axis is tried at two sizes.
    batches = (1, 2) if options.batch is None else (options.batch, options.batch)
    for clip_name, frames in verification_clips(detector.config, batches=batches):
        check = ParityCheck(precision=options.precision, clip=clip_name, thresholds=thresholds)
        with torch.inference_mode():
            clip = detector.extract(torch.from_numpy(frames))
            outputs = detector.run_steps(clip, num_steps=options.num_steps)
            selected = detector.select(
                outputs[-1],
                score_threshold=thresholds.score_threshold,
                nms_iou=thresholds.nms_iou,
                max_detections=thresholds.max_detections,
            )
        expected = {name: rows.numpy() for name, rows in selected._asdict().items()}
        if FUSED in sessions:
            result = _run(sessions[FUSED], {"frames": frames})
            yield check.detections(FUSED, result, expected)
            yield check.boxes(FUSED, "tubes_px", result["tubes_px"], expected["tubes_px"])
        if BACKBONE in sessions:
            state = _run(sessions[BACKBONE], {"frames": frames})
            yield check.features(BACKBONE, "features", state["features"], clip.features.numpy())
            if clip.context is not None:
                yield check.features(BACKBONE, "context", state["context"], clip.context.numpy())
            yield from _verify_steps(sessions, state, clip, outputs, expected, detector, check)


def _verify_steps(
    sessions: dict[str, ort.InferenceSession],
    state: Arrays,
    clip: ClipFeatures,
    outputs: list[StepOutput],
    expected: Arrays,
    detector: StepDetector,
    check: ParityCheck,
) -> Iterator[ParityRow]:
    """Every step's graph and the detect graph: on PyTorch's own inputs, and chained as the runtime runs them."""
    alone: Arrays = {"features": _rounded(clip.features, check.precision)}
    if clip.context is not None:
        alone["context"] = _rounded(clip.context, check.precision)
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
    check: ParityCheck,
) -> Iterator[ParityRow]:
    yield check.scores(graph, "class_scores", result["class_scores"], output.scores.numpy())
    for tensor in ("boxes_px", "first_px", "last_px"):
        yield check.boxes(graph, tensor, result[tensor], getattr(output, tensor).numpy())
    tubes_px = make_boxes_valid(output.boxes_px, config.image_size_px)
    yield check.boxes(graph, "tubes_px", result["tubes_px"], tubes_px.numpy())
    yield check.boxes(graph, "center_px", result["center_px"], middle_boxes(tubes_px).numpy())
    if next_tubes_px is not None:
        yield check.boxes(graph, "next_tubes_px", result["next_tubes_px"], next_tubes_px.numpy())


def _rounded(values: Tensor, precision: Precision) -> NDArray[np.float32]:
    """Float32 values that half has, for an fp16 graph."""
    return (values.half().float() if precision == "fp16" else values).numpy()


def _session(path: Path, precision: Precision) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        if precision == "fp32":
            return session
        del session  # the file loads; what is compared is its arithmetic
        model = load_onnx(path)
        round_halves(model)
        make_float(model)
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime_failures() as error:
        raise StepError(f"ONNX Runtime {ort.__version__} cannot load {path.name}: {one_line(error)}") from error


def _run(session: ort.InferenceSession, inputs: Arrays) -> Arrays:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
