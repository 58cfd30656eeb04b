"""What a graph has to do: multiply-adds, and bytes that its large operators read and write.

Source: the roofline model (Williams, Waterman and Patterson, 2009): at least work over peak, and bytes over bandwidth.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from step.errors import StepError


@dataclass(frozen=True)
class GraphWork:
    """Of one call.

    Attributes:
        multiply_adds: of convolutions and matrix products.
        bytes: what convolutions, poolings and matrix products read and write, each once.
    """

    multiply_adds: int
    bytes: int


def graph_work(path: Path, *, batch: int = 1) -> GraphWork:
    """Counts one graph of a bundle.

    Args:
        path: ONNX file.
        batch: what its free dimensions are.

    Raises:
        StepError: onnx is not installed.
    """
    try:
        import onnx
        import onnx.inliner
    except ModuleNotFoundError as error:
        raise StepError(f"counting needs {error.name}; pip install 'step-trt[export]'") from error
    model = onnx.inliner.inline_local_functions(onnx.load(path))
    for value in (*model.graph.input, *model.graph.output):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_value = batch
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        kind = value.type.tensor_type
        shapes[value.name] = [side.dim_value for side in kind.shape.dim]
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        sizes[value.name] = math.prod(shapes[value.name]) * itemsize
    multiply_adds = moved = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "MaxPool"):
            continue
        moved += sum(sizes[name] for name in (*node.input, *node.output))
        outputs = math.prod(shapes[node.output[0]])
        if node.op_type == "Conv":
            multiply_adds += outputs * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "MatMul":
            multiply_adds += outputs * shapes[node.input[0]][-1]
    return GraphWork(multiply_adds, moved)
