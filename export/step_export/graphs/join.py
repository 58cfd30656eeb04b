"""The fused graph, joined from the graphs of the step loop: nothing is traced twice, and both loops compute the same.

Shape legend: B clips, N tubes, T frames of a step's chunk.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from step.bundles.graph_spec import BACKBONE, DETECT, FUSED, INPUT_TUBES_PX, GraphSpec, step_graph_name
from step.bundles.step_loop import first_tubes, pass_on, run_steps
from step.config import StepConfig

_ANCHORS = "anchors_px"


def join_graphs(
    parts: Mapping[str, onnx.ModelProto], spec: GraphSpec, *, config: StepConfig, num_steps: int
) -> onnx.ModelProto:
    """Joins backbone, steps and detect into one model, in which the anchors are constants.

    Every name of a part gets the part's name before it, but for weights, which are called as in the checkpoint. What
    only the step loop wants (the scores of earlier steps) is left out.

    Args:
        parts: the graphs of the step loop, by name, of one opset.
        spec: the interface of the fused graph.
        config: of the model.
        num_steps: progressive steps.
    """
    joined = onnx.ModelProto()
    joined.CopyFrom(parts[BACKBONE])
    joined.graph.Clear()
    joined.graph.name = FUSED
    values: dict[str, str] = {tensor.name: tensor.name for tensor in spec.inputs}

    def append(name: str) -> dict[str, str]:
        return _append(joined, parts[name], name, values)

    pass_on(values, append(BACKBONE))
    values[INPUT_TUBES_PX] = _append_anchors(joined.graph, spec, config)
    run_steps(append, values, num_steps=num_steps)
    _add_interface(joined, parts, spec, values, num_steps=num_steps)
    _remove_unread(joined.graph)
    onnx.checker.check_model(joined)
    return joined


def _append(joined: onnx.ModelProto, part: onnx.ModelProto, name: str, values: Mapping[str, str]) -> dict[str, str]:
    """Adds a part that reads `values`; gives what its outputs are called in the joined graph."""
    graph = part.graph
    weights = {tensor.name for tensor in graph.initializer if "." in tensor.name}
    inputs = {info.name: values[info.name] for info in graph.input}

    def rename(old: str) -> str:
        return old if not old or old in weights else inputs.get(old, f"{name}/{old}")

    for node in graph.node:
        added = joined.graph.node.add()
        added.CopyFrom(node)
        added.name = f"{name}/{node.name}"
        added.input[:] = map(rename, node.input)
        added.output[:] = map(rename, node.output)
    there = {tensor.name: tensor for tensor in joined.graph.initializer}
    for tensor in graph.initializer:
        if (same := there.get(rename(tensor.name))) is not None:
            assert same == tensor, f"two parts have a weight {tensor.name}, and it differs"
            continue
        added_tensor = joined.graph.initializer.add()
        added_tensor.CopyFrom(tensor)
        added_tensor.name = rename(tensor.name)
    for info in (*graph.value_info, *graph.output):
        if info.name not in weights:
            added_info = joined.graph.value_info.add()
            added_info.CopyFrom(info)
            added_info.name = rename(info.name)
    known = {(function.domain, function.name) for function in joined.functions}
    joined.functions.extend(each for each in part.functions if (each.domain, each.name) not in known)
    imported = {entry.domain for entry in joined.opset_import}
    joined.opset_import.extend(entry for entry in part.opset_import if entry.domain not in imported)
    return {info.name: rename(info.name) for info in graph.output}


def _append_anchors(graph: onnx.GraphProto, spec: GraphSpec, config: StepConfig) -> str:
    """Adds the input tubes of the first step, [B, N, T, 4]; gives what they are called."""
    frames = spec.inputs[0]
    batch = frames.shape[0]
    tubes_px = first_tubes(config, batch=batch if isinstance(batch, int) else 1)
    graph.initializer.append(numpy_helper.from_array(tubes_px, _ANCHORS))
    if isinstance(batch, int):
        return _ANCHORS
    sizes = np.array(tubes_px.shape[1:], np.int64)
    graph.initializer.append(numpy_helper.from_array(sizes, f"{_ANCHORS}/sizes"))
    clips, shape, tubes = (f"{_ANCHORS}/{name}" for name in ("clips", "shape", "tubes"))
    graph.node.extend(
        (
            helper.make_node("Shape", [frames.name], [clips], name=clips, start=0, end=1),
            helper.make_node("Concat", [clips, f"{_ANCHORS}/sizes"], [shape], name=shape, axis=0),
            helper.make_node("Expand", [_ANCHORS, shape], [tubes], name=tubes),
        )
    )
    return tubes


def _add_interface(
    joined: onnx.ModelProto,
    parts: Mapping[str, onnx.ModelProto],
    spec: GraphSpec,
    values: Mapping[str, str],
    *,
    num_steps: int,
) -> None:
    """Declares inputs and outputs, and gives the values that are written their names of the interface."""
    joined.graph.input.extend(parts[BACKBONE].graph.input)
    outputs = {
        info.name: info for name in (step_graph_name(num_steps - 1), DETECT) for info in parts[name].graph.output
    }
    names = {values[tensor.name]: tensor.name for tensor in spec.outputs}
    joined.graph.output.extend(outputs[tensor.name] for tensor in spec.outputs)
    for node in joined.graph.node:
        node.input[:] = (names.get(name, name) for name in node.input)
        node.output[:] = (names.get(name, name) for name in node.output)


def _remove_unread(graph: onnx.GraphProto) -> None:
    """Removes nodes, constants and shapes of values that no output depends on."""
    read = {info.name for info in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(node.input)
    written = {name for node in kept for name in node.output} - {info.name for info in graph.output}
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    infos = [info for info in graph.value_info if info.name in written]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
    graph.value_info.extend(infos)
