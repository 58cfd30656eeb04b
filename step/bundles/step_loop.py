"""What each graph of the step loop reads: its clip, the anchors, and what the graphs before it wrote."""

import numpy as np
from numpy.typing import NDArray

from step.anchors import anchor_tubes
from step.bundles.graph_spec import FUSED, GraphSpec
from step.bundles.manifest import Manifest
from step.parity.runner import GraphRunner
from step.parity.tolerances import Arrays


class GraphChain:
    """The values that pass from graph to graph for one call.

    Args:
        manifest: the bundle's.
        frames: uint8 [B, F, H, W, 3].
    """

    def __init__(self, manifest: Manifest, frames: NDArray[np.uint8]) -> None:
        config = manifest.config
        anchors_px = anchor_tubes(config.anchor_mode, frames=config.chunk_frames, image_size_px=config.image_size_px)
        tubes_px = np.repeat(anchors_px[None], len(frames), axis=0)
        self._values: Arrays = {"frames": frames, "input_tubes_px": tubes_px}

    def inputs(self, spec: GraphSpec) -> Arrays:
        """A graph's inputs, in the dtypes of its interface."""
        with np.errstate(over="ignore"):  # what half cannot hold becomes inf, which the comparison sees
            return {tensor.name: self._values[tensor.name].astype(tensor.dtype) for tensor in spec.inputs}

    def raw_inputs(self, spec: GraphSpec) -> Arrays:
        """A graph's inputs, in the dtypes in which they were written."""
        return {tensor.name: self._values[tensor.name] for tensor in spec.inputs}

    def add(self, outputs: Arrays) -> None:
        """Takes what a graph wrote."""
        self._values |= outputs
        if "next_tubes_px" in outputs:
            self._values["input_tubes_px"] = outputs["next_tubes_px"]


def loop_specs(manifest: Manifest) -> list[GraphSpec]:
    """The graphs of the bundle's step loop, in the order in which they run; none if it holds the fused graph alone."""
    return [record.spec(name) for name, record in manifest.graphs.items() if name != FUSED]


def graph_inputs(runner: GraphRunner, manifest: Manifest, frames: NDArray[np.uint8], *, graph: str) -> Arrays:
    """What a graph reads, in the dtypes of its interface, when the runner runs the graphs before it."""
    chain = GraphChain(manifest, frames)
    if graph != FUSED:
        for spec in loop_specs(manifest):
            if spec.name == graph:
                break
            chain.add(runner.run(spec.name, chain.inputs(spec)))
    return chain.inputs(manifest.graphs[graph].spec(graph))
