"""Writes the body of an ONNX function, node by node, so that it reads like the tensor code it mirrors."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

DOMAIN = "step"
"""Domain of our operators, and the plugin namespace that TensorRT looks them up in."""


class FunctionBuilder:
    """Collects nodes; values are referred to by name.

    Args:
        opset: version of the standard operators used in the body.
    """

    def __init__(self, *, opset: int) -> None:
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []

    def op(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds one standard operator with one output and returns the output's name."""
        name = output or f"{op_type.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def floats(self, values: float | list[float] | NDArray[np.float32]) -> str:
        """A float32 constant."""
        return self._constant(np.asarray(values, np.float32))

    def ints(self, values: int | list[int]) -> str:
        """An int64 constant, as shapes and axes are."""
        return self._constant(np.asarray(values, np.int64))

    def bools(self, values: NDArray[np.bool_]) -> str:
        """A bool constant."""
        return self._constant(values)

    def build(self, name: str, *, inputs: list[str], output: str, attributes: list[str]) -> onnx.FunctionProto:
        """The function `step::name`, whose nodes also carry `attributes` for a plugin to read."""
        return helper.make_function(
            DOMAIN,
            name,
            inputs,
            [output],
            self._nodes,
            [helper.make_opsetid("", self._opset)],
            [*attributes, "plugin_namespace"],
        )

    def _constant(self, array: NDArray[Any]) -> str:
        return self.op("Constant", value=numpy_helper.from_array(array))
