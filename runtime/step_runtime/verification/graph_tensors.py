"""The float tensors inside an exported ONNX graph, and the PyTorch modules that they come from."""

import ast
import math
from dataclasses import dataclass
from pathlib import Path

import onnx

from step.bundles.graph_spec import BATCH, FLOAT32_ISLAND
from step.bundles.onnx_files import load_onnx

_SCOPES = "pkg.torch.onnx.name_scopes"  # torch's exporter: a list of module paths from the root to the node itself
_ROOT = "detector."
_FLOATS = (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
_CHOICES = ("ClassNms", "TopK")


@dataclass(frozen=True)
class GraphTensor:
    """The output of a node.

    Attributes:
        name: of the tensor.
        node, op_type: what computes it.
        module: path of the innermost PyTorch module it was computed in, as `--keep-fp32` has it; "" outside them.
        is_kept_float32: that module was exported with `--keep-fp32`.
        consumers: modules of the nodes that read it.
        shape: numbers, or products with the batch ("34*batch").
    """

    name: str
    node: str
    op_type: str
    module: str
    is_kept_float32: bool
    consumers: frozenset[str]
    shape: tuple[int | str, ...]

    def size(self, batch: int) -> int:
        """Values in it."""
        return math.prod(
            math.prod(batch if word == BATCH else int(word) for word in str(dim).split("*")) for dim in self.shape
        )

    def is_inside(self, module: str) -> bool:
        """Whether it is computed in the module or in one of its parts."""
        return _is_inside(self.module, module)

    def leaves(self, module: str) -> bool:
        """Whether it is computed inside the module and read outside."""
        return self.is_inside(module) and not all(_is_inside(reader, module) for reader in self.consumers)


def read_tensors(file: Path) -> list[GraphTensor]:
    """The float tensors that the nodes of a graph compute, in topological order.

    What suppression and ranking decide is left out, with everything computed from it: a tie that falls the other way
    puts other values there, which is no error.
    """
    graph = load_onnx(file).graph
    info = {entry.name: entry.type.tensor_type for entry in (*graph.value_info, *graph.output)}
    consumers: dict[str, set[str]] = {output.name: {""} for output in graph.output}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, set()).add(_module(node)[0])
    chosen: set[str] = set()
    tensors: list[GraphTensor] = []
    for node in graph.node:
        if node.op_type in _CHOICES or chosen.intersection(node.input):
            chosen.update(node.output)
            continue
        module, is_kept_float32 = _module(node)
        tensors += [
            GraphTensor(
                name=name,
                node=node.name,
                op_type=node.op_type,
                module=module,
                is_kept_float32=is_kept_float32,
                consumers=frozenset(consumers.get(name, set())),
                shape=tuple(dim.dim_param or dim.dim_value for dim in info[name].shape.dim),
            )
            for name in node.output
            if name in info and info[name].elem_type in _FLOATS
        ]
    return tensors


def _module(node: onnx.NodeProto) -> tuple[str, bool]:
    """Path below the detector ("" outside its networks), and whether a float32 island is on it."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    # The last scope is the node; the one before is the innermost module.
    path: str = ["", "", *ast.literal_eval(scopes)][-2]
    parts = path.removeprefix(_ROOT).split(".") if path.startswith(_ROOT) else []
    return ".".join(part for part in parts if part != FLOAT32_ISLAND), FLOAT32_ISLAND in parts


def _is_inside(path: str, module: str) -> bool:
    return path == module or path.startswith(f"{module}.")
