"""The backbone's graph cut in two, features and context, so that each can be counted and timed (needs onnx)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from step.bundles.graph_spec import CONTEXT, FEATURES

if TYPE_CHECKING:
    import onnx


def cut_context(model: "onnx.ModelProto") -> "tuple[onnx.ModelProto, onnx.ModelProto]":
    """Cuts a backbone graph in what `features` needs, and what only `context` needs.

    Args:
        model: with both outputs.

    Returns:
        Two graphs; the second one's inputs are the tensors where it was cut.
    """
    import onnx.shape_inference
    import onnx.utils

    for_features = _ancestors(model, FEATURES)
    only_context = [index for index in _ancestors(model, CONTEXT) if index not in for_features]
    made = {name for index in only_context for name in model.graph.node[index].output}
    weights = {tensor.name for tensor in model.graph.initializer}
    read = [name for index in only_context for name in model.graph.node[index].input if name]
    cuts = [name for name in dict.fromkeys(read) if name not in made and name not in weights]
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))  # a cut needs its tensor's shape
    frames = [value.name for value in model.graph.input]
    return extractor.extract_model(frames, [FEATURES]), extractor.extract_model(cuts, [CONTEXT])


def _ancestors(model: "onnx.ModelProto", output: str) -> set[int]:
    """Indices of the nodes that a tensor is computed by."""
    makers = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    found: set[int] = set()
    waiting: list[str] = [output]
    while waiting:
        index = makers.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            inputs: Sequence[str] = model.graph.node[index].input
            waiting += inputs
    return found
