"""What folding zero padding into a max-pool saves: the full-size backbone's padded pools alone, with and without.

    python benchmarks/pool_padding.py --threads 2

In the whole graph (graph_savings.py) a percent of the time is less than it moves between calls of a full-size clip.
"""

import copy
import time
from collections.abc import Callable

import click
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table
from step_export.graphs.fold_padding import fold_padding
from step_runtime.backends.onnxruntime import open_session, session_options
from step_runtime.backends.openvino import compile_options

from step.cli import OneLineCommand
from step.models.i3d import Triple, same_padding

_OPSET = 20
# SPEC.md, "Backbone", at 400 x 400: channels, feature frames and cells that the pool reads, its kernel and stride.
POOLS: dict[str, tuple[int, int, int, Triple, Triple]] = {
    "after conv 7x7x7": (64, 18, 200, (1, 3, 3), (1, 2, 2)),
    "after conv 3x3x3": (192, 18, 100, (1, 3, 3), (1, 2, 2)),
    "after mixed 3c": (480, 18, 50, (3, 3, 3), (2, 2, 2)),
}


def padded_pool(channels: int, frames: int, cells: int, kernel: Triple, stride: Triple) -> onnx.ModelProto:
    """A ReLU, the pool's "SAME" padding as torch's exporter writes it, the pool, and a mean that is quick to fetch."""
    pads = same_padding(kernel, stride)
    rows = [0, 0, *pads[4::-2], 0, 0, *pads[5::-2]]
    nodes = [
        helper.make_node("Relu", ["x"], ["active"]),
        helper.make_node("Pad", ["active", "rows"], ["padded"]),
        helper.make_node(
            "MaxPool", ["padded"], ["pooled"], kernel_shape=kernel, strides=stride, pads=[0] * 6, ceil_mode=1
        ),
        helper.make_node("ReduceMean", ["pooled"], ["mean"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "padded_pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, frames, cells, cells])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.array(rows), "rows")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _calls(model: onnx.ModelProto, frames: np.ndarray, threads: int) -> dict[str, Callable[[], object]]:
    content = model.SerializeToString()
    session = open_session(content, options=session_options(threads), device="cpu")
    core = openvino.Core()
    request = core.compile_model(core.read_model(content), "CPU", compile_options(threads)).create_infer_request()
    return {
        "onnxruntime": lambda: session.run(None, {"x": frames}),
        "openvino": lambda: request.infer([frames], share_inputs=True, share_outputs=True),
    }


@click.command(cls=OneLineCommand, context_settings={"show_default": True})
@click.option("--threads", type=click.IntRange(min=1), default=2, help="CPU threads.")
@click.option("--runs", type=click.IntRange(min=1), default=30, help="Calls of each, after the first.")
def main(threads: int, runs: int) -> None:
    """Times the padded max-pools of a full-size clip, with the padding before them and of their own, in rounds."""
    table = Table(title=f"max-pools of one full-size clip, {threads} threads: median ms")
    for column in ("pool", "library", "padded before", "padding of its own"):
        table.add_column(column, justify="left" if column in ("pool", "library") else "right")
    for name, (channels, count, cells, kernel, stride) in POOLS.items():
        before = padded_pool(channels, count, cells, kernel, stride)
        folded = copy.deepcopy(before)
        assert fold_padding(folded) == 1
        x = np.random.RandomState(0).standard_normal((1, channels, count, cells, cells)).astype(np.float32)
        both = [_calls(model, x, threads) for model in (before, folded)]
        times_s: dict[str, tuple[list[float], list[float]]] = {library: ([], []) for library in both[0]}
        for run in range(runs + 1):
            for library, taken in times_s.items():
                for calls, times in zip(both, taken, strict=True):
                    began_s = time.perf_counter()
                    calls[library]()
                    times += [time.perf_counter() - began_s] if run else []  # the first call is no part of the others
        for library, taken in times_s.items():
            table.add_row(name, library, *(f"{1e3 * np.median(times):.1f}" for times in taken))
    Console().print(table)


if __name__ == "__main__":
    main()
