"""PyTorch in float32, the reference: runs a detector's own modules, cut like the graphs."""

from collections.abc import Mapping, Sequence

import torch

from step.bundles.graph_spec import Arrays, ExportOptions, GraphSpec, Precision
from step.bundles.manifest import Thresholds
from step.errors import StepError
from step.models.detector import StepDetector
from step.models.exact_float32 import exact_float32
from step.models.graphs import graph_modules
from step.turns import Turns


class TorchRunner:
    """See `GraphRunner`; it has no tensors of the ONNX graphs inside.

    Args:
        detector: in float32.
        specs: interfaces of the graphs, by name.
        options: what the export decided.
        thresholds: baked into the graphs.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        StepError: no such device.
    """

    precision: Precision = "fp32"

    def __init__(
        self,
        detector: StepDetector,
        specs: Mapping[str, GraphSpec],
        *,
        options: ExportOptions,
        thresholds: Thresholds,
        device: str = "cpu",
    ) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise StepError(f"torch:{device}: PyTorch sees no CUDA device; give torch")
        self.name = "torch" if device == "cpu" else f"torch:{device}"
        self._device = device
        self._turns = Turns()
        self._specs = specs
        self._modules = graph_modules(
            detector.to(device),
            options,
            score_threshold=thresholds.score_threshold,
            nms_iou=thresholds.nms_iou,
        )

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str] = ()) -> Arrays:
        """See `GraphRunner.run`."""
        if extra_outputs:
            raise StepError("tensors inside the ONNX graphs are compared, which torch does not have; take two others")
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
