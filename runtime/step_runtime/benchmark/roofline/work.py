"""What a graph has to do: multiply-adds, and bytes that have to move.

Source: the roofline model (Williams, Waterman and Patterson, 2009): at least work over peak, and bytes over bandwidth.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from step.bundles.manifest import Manifest
from step.bundles.onnx_files import load_onnx
from step.checkpoints.toy_model import model_name
from step.errors import StepError
from step_runtime.benchmark.roofline.stages import load_stages, require_onnx

if TYPE_CHECKING:
    import onnx

_COUNTED = ("Conv", "MatMul", "MaxPool")
_ROI_ALIGN = "TubeRoIAlign"
_FUNCTION = "step.function"  # metadata of an inlined node: the function that it comes from


@dataclass(frozen=True, kw_only=True)
class GraphWork:
    """What one call computes and moves.

    Attributes:
        multiply_adds: of convolutions and matrix products, without RoI align's.
        roi_align_multiply_adds: of the matrix products inside `step::TubeRoIAlign`, which other implementations of RoI
            align do not have. A bundle of standard operators (--no-plugins) does not mark them: they are in
            `multiply_adds` then, a hundredth of a step's.
        least_bytes: weights, inputs and outputs, each once: nothing moves less.
        bytes: what convolutions, poolings and matrix products read and write, each once: without caches and fusion.
    """

    multiply_adds: int
    roi_align_multiply_adds: int
    least_bytes: int
    bytes: int


def graph_work(path: Path, *, batch: int = 1) -> GraphWork:
    """Counts one graph of a bundle.

    Args:
        path: ONNX file.
        batch: what its free dimensions are.

    Raises:
        StepError: onnx is not installed, or the file is no graph.
    """
    require_onnx()
    return model_work(load_onnx(path), batch=batch)


def stage_work(folder: Path, manifest: Manifest, *, batch: int = 1) -> dict[str, GraphWork]:
    """Counts every stage of a bundle, and its fused graph, by name.

    Raises:
        StepError: onnx is not installed, the bundle has no step-loop graphs or another batch.
    """
    check_batch(folder, manifest, batch)
    return {name: model_work(model, batch=batch) for name, model in load_stages(folder, manifest).items()}


def check_batch(folder: Path, manifest: Manifest, batch: int) -> None:
    """Whether a bundle's graphs take so many clips.

    Raises:
        StepError: they do not.
    """
    if manifest.batch not in (None, batch):
        raise StepError(
            f"{model_name(folder)}: its graphs take {manifest.batch} clips a call, not {batch}; give --batch"
        )


def model_work(model: "onnx.ModelProto", *, batch: int = 1) -> GraphWork:
    """Counts a graph in memory, which stays as it is; see `graph_work`.

    Raises:
        StepError: a shape that depends on more than the batch.
    """
    import onnx
    import onnx.inliner

    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    for function in marked.functions:
        for node in function.node:
            node.metadata_props.add(key=_FUNCTION, value=function.name)
    flat = onnx.inliner.inline_local_functions(marked)
    for value in (*flat.graph.input, *flat.graph.output):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_value = batch
    graph = onnx.shape_inference.infer_shapes(flat, data_prop=True).graph

    shapes: dict[str, list[int]] = {}
    itemsizes: dict[str, int] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        shapes[value.name] = [side.dim_value for side in kind.shape.dim]
        itemsizes[value.name] = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    for tensor in graph.initializer:
        shapes[tensor.name] = list(tensor.dims)
        itemsizes[tensor.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize

    weights = {tensor.name for tensor in graph.initializer}
    ends = {value.name for value in (*graph.input, *graph.output)}
    sizes = {name: math.prod(shape) * itemsizes[name] for name, shape in shapes.items()}
    counts = {True: 0, False: 0}  # by whether RoI align does it
    moved = 0
    for node in graph.node:
        if node.op_type not in _COUNTED:
            continue
        names = [name for name in (*node.input, *node.output) if name]
        for name in names:
            if not all(shapes.get(name, [0])):
                raise StepError(f"{node.op_type} {node.name!r}: the shape of {name!r} is not known before it runs")
        moved += sum(sizes[name] for name in names)
        in_roi_align = any(entry.key == _FUNCTION and entry.value == _ROI_ALIGN for entry in node.metadata_props)
        counts[in_roi_align] += _multiply_adds(node.op_type, node.input, shapes[node.output[0]], shapes)
    return GraphWork(
        multiply_adds=counts[False],
        roi_align_multiply_adds=counts[True],
        least_bytes=sum(sizes[name] for name in weights | ends),
        bytes=moved,
    )


def _multiply_adds(
    op_type: str, inputs: Sequence[str], result: Sequence[int], shapes: Mapping[str, Sequence[int]]
) -> int:
    if op_type == "Conv":
        return math.prod(result) * math.prod(shapes[inputs[1]][1:])  # input channels of a group, and the kernel
    if op_type == "MatMul":
        return math.prod(result) * shapes[inputs[0]][-1]
    return 0  # a pooling only compares
