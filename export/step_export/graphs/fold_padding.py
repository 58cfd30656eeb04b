"""Zero padding moved into the max-pool that reads it, which then needs no padded copy of its input.

TensorFlow's "SAME" padding is one more row and column at the end, which PyTorch's pools do not have, so that the model
pads with zeros before them (`step.models.i3d.max_pool_same`). ONNX's pools do, but with -inf: the same maxima where
what is pooled is never negative.
"""

import onnx
from onnx import helper, numpy_helper

_KEEP_SIGN = ("Concat", "MaxPool")


def fold_padding(model: onnx.ModelProto) -> int:
    """Folds every constant zero `Pad` of the main graph that one `MaxPool` reads, in place.

    Args:
        model: of torch's exporter; padding in other forms than its is left as it is.

    Returns:
        How many were folded.

    Source: https://onnx.ai/onnx/operators/onnx__MaxPool.html (pads, ceil_mode).
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    outputs = {output.name for output in graph.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    folded = []
    for pad in graph.node:
        pools = readers.get(pad.output[0], [])
        if pad.op_type != "Pad" or pad.output[0] in outputs or len(pools) != 1:
            continue
        rows = _zero_rows(pad, constants)
        if rows is not None and _is_never_negative(pad.input[0], producers) and _pad_pool(pools[0], rows):
            pools[0].input[0] = pad.input[0]
            folded.append(pad)
    for pad in folded:
        graph.node.remove(pad)
    read = {name for node in graph.node for name in node.input}
    gone = {pad.output[0] for pad in folded}
    for value in [value for value in graph.value_info if value.name in gone]:
        graph.value_info.remove(value)
    for name in {name for pad in folded for name in pad.input[1:] if name} - read:
        graph.initializer.remove(constants[name])
    return len(folded)


def _zero_rows(pad: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[int] | None:
    """How many zeros it puts before each axis, then after each; None where it does another thing, or nobody knows."""
    mode = next((attribute.s for attribute in pad.attribute if attribute.name == "mode"), b"constant")
    values = [constants.get(name) for name in pad.input[1:3] if name]
    has_axes = any(pad.input[3:])
    if mode != b"constant" or not values or has_axes or any(value is None for value in values):
        return None
    rows, *fill = (numpy_helper.to_array(value) for value in values if value is not None)
    return None if any(value.any() for value in fill) or (rows < 0).any() else rows.tolist()


def _pad_pool(pool: onnx.NodeProto, rows: list[int]) -> bool:
    """Adds to a pool's own padding, if it can have that: every window, a partial one too, has to begin in the map."""
    if pool.op_type != "MaxPool" or len(pool.output) != 1:
        return False
    attributes = {attribute.name: attribute for attribute in pool.attribute}
    kernel = list(attributes["kernel_shape"].ints)
    strides = list(attributes["strides"].ints) if "strides" in attributes else [1] * len(kernel)
    axes = len(rows) // 2
    others = axes - len(kernel)  # batch and channels
    own = list(attributes["pads"].ints) if "pads" in attributes else [0] * (2 * len(kernel))
    auto = attributes["auto_pad"].s if "auto_pad" in attributes else b"NOTSET"
    more = [*rows[others:axes], *rows[axes + others :]]
    padding = [one + other for one, other in zip(own, more, strict=True)]
    beyond_map = any(rows[:others]) or any(rows[axes : axes + others])
    most = [size - stride for size, stride in zip(kernel, strides, strict=True)] * 2
    if auto != b"NOTSET" or beyond_map or any(count > limit for count, limit in zip(padding, most, strict=True)):
        return False
    if "pads" in attributes:
        pool.attribute.remove(attributes["pads"])
    pool.attribute.append(helper.make_attribute("pads", padding))
    return True


def _is_never_negative(name: str, producers: dict[str, onnx.NodeProto]) -> bool:
    node = producers.get(name)
    if node is None:
        return False
    if node.op_type == "Relu":
        return True
    data = node.input if node.op_type == "Concat" else node.input[:1]
    return node.op_type in _KEEP_SIGN and all(_is_never_negative(each, producers) for each in data)
