"""The step loop, written once: which graphs follow each other, and what each passes to the next (torch-free).

Backends hold values as they lie in their library's memory; verification and rooflines hold NumPy arrays. The rule is
the same: what a graph writes joins the values by name, and the tubes for the next step are its input tubes.

Shape legend: B clips, F frames, N tubes, T frames of a step's chunk.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from step.anchors import anchor_tubes
from step.bundles.graph_spec import (
    BACKBONE,
    DETECT,
    FUSED,
    INPUT_TUBES_PX,
    NEXT_TUBES_PX,
    Arrays,
    GraphSpec,
    step_graph_name,
)
from step.config import StepConfig

Value = TypeVar("Value")


def loop_graphs(num_steps: int) -> tuple[str, ...]:
    """Names of the graphs of a step loop, in the order in which they run."""
    return (BACKBONE, *map(step_graph_name, range(num_steps)), DETECT)


def graphs_that_run(loop: str, num_steps: int) -> tuple[str, ...]:
    """Names of the graphs of a loop, "fused" or "steps", in the order in which they run."""
    return (FUSED,) if loop == "fused" else loop_graphs(num_steps)


def first_tubes(config: StepConfig, *, batch: int) -> NDArray[np.float32]:
    """The input tubes of the first step, float32 [B, N, T, 4] in px: the anchors, the same in every frame and clip."""
    anchors_px = anchor_tubes(config.anchor_mode, frames=config.chunk_frames, image_size_px=config.image_size_px)
    return np.repeat(anchors_px[None], batch, axis=0)


def pass_on(values: dict[str, Value], outputs: Mapping[str, Value]) -> None:
    """Adds what a graph wrote to the values that the next graphs read."""
    values.update(outputs)
    if NEXT_TUBES_PX in outputs:
        values[INPUT_TUBES_PX] = outputs[NEXT_TUBES_PX]


def run_steps(run: Callable[[str], Mapping[str, Value]], values: dict[str, Value], *, num_steps: int) -> None:
    """Runs the loop behind the backbone: every step's graph, then the one that detects.

    Args:
        run: runs the graph of a name on `values` and returns what it wrote, by name.
        values: what the backbone wrote, and the input tubes; every graph's outputs join them.
        num_steps: progressive steps to run.
    """
    for _ in each_step(run, values, num_steps=num_steps):
        pass
    pass_on(values, run(DETECT))


def each_step(run: Callable[[str], Mapping[str, Value]], values: dict[str, Value], *, num_steps: int) -> Iterator[int]:
    """Runs the graphs of the steps, and gives each step (0-based) when it has run, so that detection may follow.

    Args:
        run, values, num_steps: see `run_steps`.
    """
    for step in range(num_steps):
        pass_on(values, run(step_graph_name(step)))
        yield step


class GraphChain:
    """The values that pass from graph to graph for one call, as NumPy arrays.

    Args:
        config: of the model.
        frames: uint8 [B, F, H, W, 3].
    """

    def __init__(self, config: StepConfig, frames: NDArray[np.uint8]) -> None:
        self._values: Arrays = {"frames": frames, INPUT_TUBES_PX: first_tubes(config, batch=len(frames))}

    def inputs(self, spec: GraphSpec) -> Arrays:
        """A graph's inputs, in the dtypes of its interface."""
        with np.errstate(over="ignore"):  # what half cannot hold becomes inf, which the comparison sees
            return {tensor.name: self._values[tensor.name].astype(tensor.dtype, copy=False) for tensor in spec.inputs}

    def raw_inputs(self, spec: GraphSpec) -> Arrays:
        """A graph's inputs, in the dtypes in which they were written."""
        return {tensor.name: self._values[tensor.name] for tensor in spec.inputs}

    def add(self, outputs: Arrays) -> None:
        """Takes what a graph wrote."""
        pass_on(self._values, outputs)
