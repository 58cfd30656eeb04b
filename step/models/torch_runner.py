"""PyTorch in float32, the reference: runs the checkpoint's own modules, cut like the graphs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from step_runtime.backends.torch import exact_float32
from step_runtime.backends.turns import Turns

from step import load_checkpoint
from step.bundles.graph_spec import Precision
from step.bundles.manifest import Manifest
from step.errors import StepError
from step.files.atomic import sha256
from step.models.graphs import graph_modules
from step.parity.tolerances import Arrays


class TorchRunner:
    """See `GraphRunner`; it has no tensors of the ONNX graphs inside.

    Args:
        checkpoint: what the bundle was exported from.
        manifest: the bundle's; gives the thresholds and the number of steps.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        StepError: another checkpoint, or no such device.
    """

    precision: Precision = "fp32"

    def __init__(self, checkpoint: Path, manifest: Manifest, *, device: str) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise StepError(f"--backends torch:{device} but PyTorch sees no CUDA device; give torch")
        detector = load_checkpoint(checkpoint)
        if sha256(checkpoint) != manifest.source.sha256:
            raise StepError(
                f"{checkpoint}: not what the bundle was exported from ({manifest.source.file}, "
                f"sha256 {manifest.source.sha256[:12]}...); give that checkpoint"
            )
        self.name = "torch" if device == "cpu" else f"torch:{device}"
        self._device = device
        self._turns = Turns()
        self._specs = {name: record.spec(name) for name, record in manifest.graphs.items()}
        thresholds = manifest.thresholds
        self._modules = graph_modules(
            detector.to(device),
            manifest.options,
            score_threshold=thresholds.score_threshold,
            nms_iou=thresholds.nms_iou,
        )

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str] = ()) -> Arrays:
        """See `GraphRunner.run`."""
        if extra_outputs:
            raise StepError("--bisect compares tensors of the ONNX graphs, which torch does not have; take two others")
        with self._turns.taken():
            return self._run(graph, inputs)

    def _run(self, graph: str, inputs: Arrays) -> Arrays:
        spec = self._specs[graph]
        tensors = [torch.from_numpy(inputs[tensor.name]).to(self._device) for tensor in spec.inputs]
        with exact_float32(), torch.inference_mode():
            outputs = self._modules[graph](*(x.float() if x.dtype.is_floating_point else x for x in tensors))
        return {tensor.name: value.cpu().numpy() for tensor, value in zip(spec.outputs, outputs, strict=True)}

    def close(self) -> None:
        """See `GraphRunner.close`."""
        self._turns.close(self._modules.clear)
