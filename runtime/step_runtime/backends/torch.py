"""PyTorch, the reference: runs a checkpoint, not a bundle."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from step_plugins import PluginError

from step import load_checkpoint
from step.detections import Detections
from step.errors import StepError
from step.models.detector import ClipFeatures
from step_runtime.backends.base import Features, Finished, Loop
from step_runtime.backends.torch_kernels import use_kernels


class TorchBackend:
    """A checkpoint's detector in eager mode; see `Backend` for the attributes.

    Args:
        checkpoint: see `step.load_checkpoint`.
        num_steps: progressive steps to run; None for all.
        device: "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None lets the library choose.

    Raises:
        StepError: a bad checkpoint or no such device.
    """

    name = "torch"
    loop: Loop = "steps"
    min_batch = 1
    max_batch: int | None = None
    depth = 1

    def __init__(self, checkpoint: Path, *, num_steps: int | None, device: str, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise StepError(f"--device is {device} but PyTorch sees no CUDA device; give --device cpu")
        self._detector = load_checkpoint(checkpoint).to(device)
        self.config = self._detector.config
        self.device = self._device = device
        if device.startswith("cuda"):
            problem = use_kernels(device)
            self.device += "" if problem is None else f", without the engines' kernels: {problem}"
        self._num_steps = num_steps if num_steps is not None else self.config.num_steps
        if not 1 <= self._num_steps <= self.config.num_steps:
            raise StepError(f"--steps is {num_steps}; this checkpoint has 1 to {self.config.num_steps}")

    def compile(self) -> None:
        """Has torch.compile compile the backbone and the heads at the next call."""
        self._detector.backbone.compile()
        for head in self._detector.heads:
            head.compile()

    def submit(self, frames: NDArray[np.uint8]) -> Finished:
        """See `Backend.submit`; the thresholds are the defaults of `step-export`."""
        clips = torch.from_numpy(frames).to(self._device)
        try:
            detections = self._detector.detect(clips, num_steps=self._num_steps)
        except PluginError as error:
            raise StepError(str(error)) from error
        return Finished(Detections(*(rows.cpu().numpy() for rows in detections)))

    def extract(self, frames: NDArray[np.uint8]) -> Features:
        """See `TakesFeatures.extract`."""
        with torch.inference_mode():
            clip = self._detector.extract(torch.from_numpy(frames).to(self._device))
        return Features(clip.features.cpu().numpy(), None if clip.context is None else clip.context.cpu().numpy())

    def submit_features(self, clip: Features) -> Finished:
        """See `TakesFeatures.submit_features`."""
        tensors = {name: torch.from_numpy(array).to(self._device) for name, array in clip.inputs.items()}
        features = ClipFeatures(tensors["features"], tensors.get("context"))
        try:
            detections = self._detector.detect_features(features, num_steps=self._num_steps)
        except PluginError as error:
            raise StepError(str(error)) from error
        return Finished(Detections(*(rows.cpu().numpy() for rows in detections)))

    def close(self) -> None:
        """See `Backend.close`."""
        del self._detector
