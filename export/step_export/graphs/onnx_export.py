"""One module to one ONNX model: torch's exporter, our operators as nodes, and their function bodies."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
import torch
from onnx.defs import OpSchema
from onnxscript import values
from torch import nn

from step.anchors import anchor_boxes
from step.bundles.graph_spec import BATCH, GraphSpec
from step.config import StepConfig
from step.ops.class_nms import class_nms_op
from step.ops.roi_align import tube_roi_align_op
from step_export.graphs.ops import class_nms, roi_align
from step_export.graphs.ops.function_builder import DOMAIN

_TORCH_DTYPES = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "float32": torch.float32,
    "int64": torch.int64,
}
_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_TRACE_BATCH = 2  # torch.export treats sizes 0 and 1 as constants, so a dynamic batch is traced with two clips


def export_graph(module: nn.Module, spec: GraphSpec, *, config: StepConfig, opset: int) -> onnx.ModelProto:
    """Traces a module into an ONNX model with the names, dtypes and dynamic axes of `spec`.

    Args:
        module: in eval mode, on the CPU.
        spec: the interface; the result is checked against it.
        config: gives the sizes that the function bodies have as constants.
        opset: version of the standard operators.

    Raises:
        AssertionError: the traced model's interface is not that of `spec` (a bug here, never the user's).
    """
    inputs = tuple(
        torch.zeros(tensor.concrete_shape(_TRACE_BATCH), dtype=_TORCH_DTYPES[tensor.dtype]) for tensor in spec.inputs
    )
    batch = torch.export.Dim(BATCH)
    dynamic = tuple({axis: batch for axis, dim in enumerate(t.shape) if dim == BATCH} for t in spec.inputs)
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            opset_version=opset,
            custom_translation_table={
                tube_roi_align_op._opoverload: _tube_roi_align_node(),
                class_nms_op._opoverload: _class_nms_node(),
            },
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_paths(model)
    _add_functions(model, config=config, opset=opset)
    _check_interface(model, spec)
    onnx.checker.check_model(model)
    return model


def _tube_roi_align_node() -> Callable[..., Any]:
    operator = _operator(roi_align.NAME, ["T", "tensor(float)"], "T", roi_align.ATTRIBUTES)

    def translate(features: Any, tubes_px: Any, pool_size: int) -> Any:
        return operator(features, tubes_px, pool_size=pool_size, plugin_namespace=DOMAIN)

    return translate


def _class_nms_node() -> Callable[..., Any]:
    operator = _operator(class_nms.NAME, ["tensor(float)"] * 2, "tensor(float)", class_nms.ATTRIBUTES)

    def translate(boxes_xyxy: Any, scores: Any, score_threshold: float, iou_threshold: float) -> Any:
        return operator(
            boxes_xyxy,
            scores,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            plugin_namespace=DOMAIN,
        )

    return translate


def _operator(name: str, inputs: list[str], output: str, attributes: Mapping[str, type]) -> values.Op:
    """An operator of our domain that onnxscript can emit; the schema is not registered anywhere."""
    kinds = {int: OpSchema.AttrType.INT, float: OpSchema.AttrType.FLOAT, str: OpSchema.AttrType.STRING}
    schema = OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[OpSchema.FormalParameter(f"input{i}", kind) for i, kind in enumerate(inputs)],
        outputs=[OpSchema.FormalParameter("output", output)],
        attributes=[
            OpSchema.Attribute(key, kinds[kind]) for key, kind in {**attributes, "plugin_namespace": str}.items()
        ],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "features")],
    )
    return values.Op(values.Opset(DOMAIN, 1), name, schema)


def _add_functions(model: onnx.ModelProto, *, config: StepConfig, opset: int) -> None:
    """Gives every operator of ours that the graph uses a body of standard operators."""
    ours = {node.op_type: node for node in model.graph.node if node.domain == DOMAIN}
    if roi_align.NAME in ours:
        model.functions.append(
            roi_align.function_body(
                opset=opset,
                channels=config.feature_channels,
                feature_size=config.feature_size,
                pool_size=config.pool_size,
            )
        )
    if class_nms.NAME in ours:
        node = ours[class_nms.NAME]
        attributes = {attribute.name: attribute.f for attribute in node.attribute}
        model.functions.append(
            class_nms.function_body(
                opset=opset,
                num_boxes=len(anchor_boxes(config.anchor_mode)),
                score_threshold=attributes["score_threshold"],
                iou_threshold=attributes["iou_threshold"],
            )
        )
    if ours and all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def _forget_paths(model: onnx.ModelProto) -> None:
    """Drops where each node came from in Python: paths of this machine, which make every export another file."""
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != _STACK_TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def _check_interface(model: onnx.ModelProto, spec: GraphSpec) -> None:
    for kind, infos, tensors in (
        ("input", model.graph.input, spec.inputs),
        ("output", model.graph.output, spec.outputs),
    ):
        found = [
            (
                info.name,
                onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).name,
                tuple(dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim),
            )
            for info in infos
        ]
        expected = [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]
        assert found == expected, f"{spec.name} {kind}s: traced {found}, specified {expected}"


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """torch's exporter prints and logs its progress; ours is shown by the caller."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except torch.onnx.OnnxExporterError as error:
        if _was_interrupted(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        logger.setLevel(level)


def _was_interrupted(error: BaseException) -> bool:
    """The exporter takes Ctrl-C for a failure of the step that it interrupts."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
