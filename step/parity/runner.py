"""The one interface behind which every way of running a single graph stands."""

from collections.abc import Sequence
from typing import Protocol

from step.bundles.graph_spec import Arrays, Precision


class GraphRunner(Protocol):
    """Runs the graphs of one bundle, one at a time.

    Attributes:
        name: as given to `--backends`: "onnxruntime", "torch:cuda", ...
        precision: of the arithmetic in the networks.
    """

    name: str
    precision: Precision

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str] = ()) -> Arrays:
        """A graph's outputs by name.

        Args:
            graph: "fused", "backbone", "step1", ..., see `step.bundles.graph_spec`.
            inputs: by name, at least the graph's own; float ones are cast to what the runner takes.
            extra_outputs: tensors inside the ONNX graph, by name, to return as well. Whoever runs ONNX graphs has them;
                they are not kept from one call to the next, but calls in a row with the same ones cost no more.

        Raises:
            StepError: the graph cannot be loaded or run, or the runner has no such tensors.
        """

    def close(self) -> None:
        """Frees the graphs and their memory; nothing may be called after."""
