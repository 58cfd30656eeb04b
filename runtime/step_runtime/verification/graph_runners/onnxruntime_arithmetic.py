"""ONNX Runtime on an fp16 bundle's graphs with the arithmetic written into them: all in float32, or rounded to half.

On a CPU the library runs half operators in float32 and leaves out the casts between them, so that values which half
cannot hold go unnoticed (https://github.com/microsoft/onnxruntime/issues/11831); only the casts that are in the graph
itself stay. These two runners say what half costs where there is no GPU.
"""

from collections.abc import Sequence
from pathlib import Path

from step.bundles.graph_edits import make_float, mark_outputs, round_halves
from step.bundles.graph_spec import Arrays, Precision
from step.bundles.manifest import Manifest
from step.bundles.onnx_files import load_onnx
from step.checkpoints.toy_model import model_name
from step.errors import ArgumentError
from step_runtime.verification.graph_runners.onnx_sessions import OnnxSessions


class OnnxRuntimeArithmeticRunner:
    """See `GraphRunner`; both kinds have the weights that were rounded to half, and float32 inputs and outputs.

    Args:
        bundle: folder.
        manifest: what `read_bundle` returned for it.
        arithmetic: "fp32", or "fp16": each node's half result rounded, sums inside a node in float32.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        StepError: the bundle is not fp16.
    """

    def __init__(self, bundle: Path, manifest: Manifest, *, arithmetic: Precision, device: str) -> None:
        self.name = f"onnxruntime-{arithmetic}" + ("" if device == "cpu" else f":{device}")
        if manifest.precision != "fp16":
            raise ArgumentError(
                f"`backends` {self.name} is for fp16 bundles; {model_name(bundle)} is {manifest.precision}"
            )
        self.precision = arithmetic
        self._files = {name: bundle / record.file for name, record in manifest.graphs.items()}
        self._sessions = OnnxSessions(self._load, device=device)

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str] = ()) -> Arrays:
        """See `GraphRunner.run`."""
        return self._sessions.run(graph, inputs, extra_outputs)

    def close(self) -> None:
        """See `GraphRunner.close`."""
        self._sessions.close()

    def _load(self, graph: str, extra_outputs: Sequence[str]) -> bytes:
        model = load_onnx(self._files[graph])
        if self.precision == "fp16":
            round_halves(model)
        make_float(model)
        mark_outputs(model, extra_outputs)
        content: bytes = model.SerializeToString()
        return content
