"""ONNX Runtime on the graphs with all half tensors made float: what half arithmetic costs, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

import onnx

from step.bundle import Manifest
from step.errors import StepError
from step.graph_spec import Precision
from step.parity import Arrays
from step_runtime.graph_runners.graph_edits import make_float, mark_outputs
from step_runtime.graph_runners.onnx_sessions import OnnxSessions


class OnnxRuntimeFp32Runner:
    """See `GraphRunner`; the weights stay rounded to half, so that both sides have the same.

    Args:
        bundle: folder.
        manifest: what `read_bundle` returned for it.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        StepError: the bundle is not fp16.
    """

    precision: Precision = "fp32"

    def __init__(self, bundle: Path, manifest: Manifest, *, device: str) -> None:
        if manifest.precision != "fp16":
            raise StepError(f"--backends onnxruntime-fp32 is for fp16 bundles; {bundle} is {manifest.precision}")
        self.name = "onnxruntime-fp32" if device == "cpu" else f"onnxruntime-fp32:{device}"
        self._files = {name: bundle / record.file for name, record in manifest.graphs.items()}
        self._sessions = OnnxSessions(self._load, device=device)

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str] = ()) -> Arrays:
        """See `GraphRunner.run`."""
        return self._sessions.run(graph, inputs, extra_outputs)

    def close(self) -> None:
        """See `GraphRunner.close`."""
        self._sessions.close()

    def _load(self, graph: str, extra_outputs: Sequence[str]) -> Path | bytes:
        model = onnx.load(self._files[graph])
        make_float(model)
        mark_outputs(model, extra_outputs)
        content: bytes = model.SerializeToString()
        return content
