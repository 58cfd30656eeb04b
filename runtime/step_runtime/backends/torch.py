"""PyTorch, the reference: runs a checkpoint, not a bundle."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from step_plugins import PluginError

from step import load_checkpoint
from step.bundles.graph_spec import BACKBONE, CONTEXT, DETECT, Precision, step_graph_name
from step.detections import Detections
from step.errors import ArgumentError, StepError
from step.models.detector import ClipFeatures, frame_by_frame
from step.models.i3d import MaxPoolSame
from step.parity.tolerances import held_to
from step.turns import Turns
from step_runtime.backends.base import Features, Finished, Loop
from step_runtime.backends.torch_kernels import use_kernels
from step_runtime.tracing.tracer import SILENT, Tracer

# The defaults of `StepDetector.detect` and of `step-export`.
_SCORE_THRESHOLD, _NMS_IOU, _MAX_DETECTIONS = 0.01, 0.4, 300


class TorchBackend:
    """A checkpoint's detector in eager mode; see `Backend` for the attributes.

    Args:
        checkpoint: see `step.load_checkpoint`.
        num_steps: progressive steps to run; None for all.
        device: "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None lets the library choose.
        tracer: is told of uploads, what the graphs would be, and downloads; on a GPU, each waits for its end then.

    Raises:
        StepError: a bad checkpoint or no such device.
    """

    name = "torch"
    loop: Loop = "steps"
    min_batch = 1
    max_batch: int | None = None
    depth = 1

    def __init__(
        self,
        checkpoint: Path,
        *,
        num_steps: int | None,
        device: str,
        threads: int | None,
        tracer: Tracer = SILENT,
    ) -> None:
        self._tracer = tracer
        self._turns = Turns()
        if threads is not None:
            torch.set_num_threads(threads)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ArgumentError(f"`device` is {device} but PyTorch sees no CUDA device; give `device` cpu")
        self._detector = load_checkpoint(checkpoint).to(device)
        self.config = self._detector.config
        self.device = self._device = device
        if device.startswith("cuda"):
            problem = use_kernels(device)
            self.device += "" if problem is None else f", without the engines' kernels: {problem}"
        self._num_steps = num_steps if num_steps is not None else self.config.num_steps
        if not 1 <= self._num_steps <= self.config.num_steps:
            raise ArgumentError(f"`num_steps` is {num_steps}; this checkpoint has 1 to {self.config.num_steps}")

    @property
    def precision(self) -> Precision:
        """See `Backend`; PyTorch computes convolutions on a GPU in TF32 unless it is told not to."""
        return held_to("fp32", tf32=self._device.startswith("cuda") and torch.backends.cudnn.allow_tf32)

    def compile(self) -> None:
        """Has torch.compile compile the backbone and the heads at the next call."""
        self._detector.backbone.compile()
        for head in self._detector.heads:
            head.compile()

    def use_own_pools(self) -> None:
        """Has PyTorch's own max-pools run on a CPU, as in the authors' code, instead of oneDNN's, which are faster."""
        for module in self._detector.modules():
            if isinstance(module, MaxPoolSame):
                module.own_only = True

    def submit(self, frames: NDArray[np.uint8]) -> Finished:
        """See `Backend.submit`; the thresholds are the defaults of `step-export`."""
        with self._turns.taken():
            return self._finish(self._extract(frames))

    def extract(self, frames: NDArray[np.uint8]) -> Features:
        """See `TakesFeatures.extract`."""
        with self._turns.taken():
            clip = self._extract(frames)
            with self._span("download"):
                context = None if clip.context is None else clip.context.cpu().numpy()
                return Features(clip.features.cpu().numpy(), context)

    def submit_features(self, clip: Features) -> Finished:
        """See `TakesFeatures.submit_features`."""
        with self._turns.taken():
            with self._span("upload"):
                tensors = {name: torch.from_numpy(array).to(self._device) for name, array in clip.inputs.items()}
            return self._finish(ClipFeatures(tensors["features"], tensors.get("context")))

    def close(self) -> None:
        """See `Backend.close`."""
        self._turns.close(self._free)

    def _free(self) -> None:
        del self._detector

    def _extract(self, frames: NDArray[np.uint8]) -> ClipFeatures:
        with self._span("upload"):
            clips = torch.from_numpy(frames).to(self._device)
        detector, context = self._detector, None
        with torch.inference_mode():
            with self._span(BACKBONE):
                volume = detector.run_backbone(clips)
                features = frame_by_frame(volume)
            if detector.context is not None:
                with self._span(CONTEXT):
                    context = detector.context(volume)
        return ClipFeatures(features, context)

    def _finish(self, clip: ClipFeatures) -> Finished:
        """`StepDetector.detect` from the features on, cut where the graphs are."""
        detector, last = self._detector, self._num_steps - 1
        tubes_px = detector.initial_tubes(len(clip.features))
        try:
            with torch.inference_mode():
                for step in range(self._num_steps):
                    with self._span(step_graph_name(step)):
                        output = detector.run_step(clip, tubes_px, step=step)
                        if step < last:
                            tubes_px = detector.next_tubes(output, step=step)
                with self._span(DETECT):
                    detections = detector.select(
                        output, score_threshold=_SCORE_THRESHOLD, nms_iou=_NMS_IOU, max_detections=_MAX_DETECTIONS
                    )
        except PluginError as error:
            raise StepError(str(error)) from error
        with self._span("download"):
            return Finished(Detections(*(rows.cpu().numpy() for rows in detections)))

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        with self._tracer.span(name):
            yield
            if self._tracer.is_on and self._device.startswith("cuda"):
                torch.cuda.synchronize(self._device)
