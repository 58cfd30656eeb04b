"""Changes to ONNX graphs for comparing them: extra outputs, half tensors made float, rounding made explicit."""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from step.errors import StepError

_HALF, _FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
_ROUNDED = ".rounded"  # ends the names of the half tensors that `round_halves` adds


def mark_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Makes tensors inside a graph outputs of it.

    Raises:
        StepError: the graph has no tensor of that name.
    """
    inside = {info.name: info for info in model.graph.value_info}
    own = {output.name for output in model.graph.output}
    for name in names:
        if name in own:
            continue
        if name not in inside:
            raise StepError(f"the ONNX graph has no tensor {name!r}; export the bundle again")
        model.graph.output.append(inside[name])


def round_halves(model: onnx.ModelProto) -> None:
    """Puts a cast to half and one to float32 behind every node with a half result, which then still has its name.

    The graph is made valid by `make_float`, which leaves these casts alone. Inside function bodies nothing is rounded.
    """
    graph = model.graph
    halves = {info.name for info in (*graph.value_info, *graph.output) if info.type.tensor_type.elem_type == _HALF}
    nodes: list[onnx.NodeProto] = []
    for original in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in halves:
                exact, half = f"{name}.exact", f"{name}{_ROUNDED}"
                node.output[index] = exact
                nodes.append(helper.make_node("Cast", [exact], [half], to=_HALF))
                nodes.append(helper.make_node("Cast", [half], [name], to=_FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)


def make_float(model: onnx.ModelProto) -> None:
    """Makes every half tensor of a model float32: inputs, outputs, weights, constants, casts, function bodies."""
    graph = model.graph
    for tensor in graph.initializer:
        _make_tensor_float(tensor)
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == _HALF:
            info.type.tensor_type.elem_type = _FLOAT
    _make_nodes_float(graph.node)
    for function in model.functions:
        _make_nodes_float(function.node)


def _make_nodes_float(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _make_tensor_float(attribute.t)
            elif node.op_type == "Cast" and attribute.i == _HALF and not node.output[0].endswith(_ROUNDED):
                attribute.i = _FLOAT


def _make_tensor_float(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _HALF:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
