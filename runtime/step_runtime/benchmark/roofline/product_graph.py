"""A square matrix product as an ONNX graph: what a library's convolutions are compared with (needs onnx)."""

from typing import TYPE_CHECKING

import numpy as np

from step.bundles.graph_spec import Arrays

if TYPE_CHECKING:
    import onnx

_OPSET = 20


def product_graph(size: int) -> "tuple[onnx.ModelProto, Arrays]":
    """The product of an input with a weight, as in a network, which the library may lay out as it likes.

    Args:
        size: rows and columns of both factors, float32.

    Returns:
        The graph, and an input for it.
    """
    from onnx import TensorProto, helper, numpy_helper

    state = np.random.RandomState(0)
    first, second = (state.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [size, size])],
        [numpy_helper.from_array(second, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10), {"a": first}
