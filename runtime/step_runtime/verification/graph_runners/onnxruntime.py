"""ONNX Runtime on the graphs as they are."""

from collections.abc import Sequence
from pathlib import Path

from step.bundles.graph_spec import Arrays
from step.bundles.manifest import Manifest
from step.bundles.onnx_files import load_onnx
from step_runtime.verification.graph_runners.onnx_sessions import OnnxSessions


class OnnxRuntimeRunner:
    """See `GraphRunner`.

    Args:
        bundle: folder.
        manifest: what `read_bundle` returned for it.
        device: "cpu", "cuda" or "cuda:N".
    """

    def __init__(self, bundle: Path, manifest: Manifest, *, device: str) -> None:
        self.name = "onnxruntime" if device == "cpu" else f"onnxruntime:{device}"
        self.precision = manifest.precision
        self._files = {name: bundle / record.file for name, record in manifest.graphs.items()}
        self._sessions = OnnxSessions(self._load, device=device)

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str] = ()) -> Arrays:
        """See `GraphRunner.run`."""
        return self._sessions.run(graph, inputs, extra_outputs)

    def close(self) -> None:
        """See `GraphRunner.close`."""
        self._sessions.close()

    def _load(self, graph: str, extra_outputs: Sequence[str]) -> Path | bytes:
        if not extra_outputs:
            return self._files[graph]
        from step.bundles.graph_edits import mark_outputs  # a plain comparison needs no onnx

        model = load_onnx(self._files[graph])
        mark_outputs(model, extra_outputs)
        content: bytes = model.SerializeToString()
        return content
