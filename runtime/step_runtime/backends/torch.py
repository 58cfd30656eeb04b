"""PyTorch, the reference: runs a checkpoint, not a bundle."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from step_plugins import PluginError

from step import load_checkpoint
from step.bundles.graph_spec import BACKBONE, CONTEXT, DETECT, Precision, step_graph_name
from step.bundles.manifest import DEFAULT_THRESHOLDS, Thresholds
from step.detections import Detections
from step.errors import ArgumentError, StepError
from step.models.detector import ClipFeatures, StepOutput, frame_by_frame
from step.models.i3d import MaxPoolSame
from step.parity.tolerances import held_to
from step.turns import Turns
from step_runtime.backends.base import Array, Features, Finished, Loop
from step_runtime.backends.torch_kernels import use_kernels
from step_runtime.tracing.tracer import SILENT, Tracer


class TorchBackend:
    """A checkpoint's detector in eager mode; see `Backend` for the attributes.

    Args:
        checkpoint: see `step.load_checkpoint`.
        num_steps: progressive steps to run; None for all.
        device: "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None lets the library choose.
        thresholds: of the detections.
        tracer: records uploads, what the graphs would be, and downloads; on a GPU, each waits for its end then.

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
        thresholds: Thresholds = DEFAULT_THRESHOLDS,
        tracer: Tracer = SILENT,
    ) -> None:
        self._tracer = tracer
        self._thresholds = thresholds
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
        self.threads = None if device.startswith("cuda") else torch.get_num_threads()
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
        """See `Backend.submit`."""
        with self._turns.taken():
            return self._finish(self._extract(frames))

    def detect_every_step(self, frames: NDArray[np.uint8]) -> list[Detections[Array]]:
        """See `GivesEveryStep.detect_every_step`."""
        with self._turns.taken():
            return self._detected(self._extract(frames), steps=range(self._num_steps))

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
        return Finished(self._detected(clip, steps=(self._num_steps - 1,))[-1])

    def _detected(self, clip: ClipFeatures, *, steps: Sequence[int]) -> list[Detections[Array]]:
        """Runs all steps, and detects after some of them."""
        detector, last = self._detector, self._num_steps - 1
        tubes_px = detector.initial_tubes(len(clip.features))
        found: list[Detections[Array]] = []
        try:
            with torch.inference_mode():
                for step in range(self._num_steps):
                    with self._span(step_graph_name(step)):
                        output = detector.run_step(clip, tubes_px, step=step)
                        if step < last:
                            tubes_px = detector.next_tubes(output, step=step)
                    if step in steps:
                        found.append(self._select(output))
        except PluginError as error:
            raise StepError(str(error)) from error
        return found

    def _select(self, output: StepOutput) -> Detections[Array]:
        thresholds = self._thresholds
        with self._span(DETECT):
            detections = self._detector.select(
                output,
                score_threshold=thresholds.score_threshold,
                nms_iou=thresholds.nms_iou,
                max_detections=thresholds.max_detections,
            )
        with self._span("download"):
            return Detections(*(rows.cpu().numpy() for rows in detections))

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        with self._tracer.span(name):
            yield
            if self._tracer.is_on and self._device.startswith("cuda"):
                torch.cuda.synchronize(self._device)
