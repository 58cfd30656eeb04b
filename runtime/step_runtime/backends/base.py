"""The one interface behind which every way of running the model stands."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from step.bundles.graph_spec import Precision
from step.config import StepConfig
from step.detections import Detections

Loop = Literal["fused", "steps"]
Array = NDArray[np.generic]


class Pending(Protocol):
    """Detections that may still be computed."""

    def result(self) -> Detections[Array]:
        """Waits for them; to be called once."""


@dataclass(frozen=True)
class Finished:
    """Detections of a backend that computes while it is called."""

    detections: Detections[Array]

    def result(self) -> Detections[Array]:
        """See `Pending.result`."""
        return self.detections


@dataclass(frozen=True)
class Features:
    """What the backbone graph gives, in the graphs' own dtype.

    Attributes:
        features: [B, T, C, H, W].
        context: [B, 1024, T]; None for a model without one.
    """

    features: Array
    context: Array | None

    @property
    def inputs(self) -> dict[str, Array]:
        """By the names that the step graphs give them."""
        return {"features": self.features} | ({} if self.context is None else {"context": self.context})


@runtime_checkable
class TakesFeatures(Protocol):
    """What a backend offers besides `Backend` while its loop is "steps": the loop in two halves."""

    def extract(self, frames: NDArray[np.uint8]) -> Features:
        """Backbone and context of clips, uint8 [B, F, H, W, 3]; arrays of the caller's own on the host."""

    def submit_features(self, clip: Features) -> Pending:
        """Starts the steps and the detection on features that `extract` gave; see `Backend.submit`."""


@runtime_checkable
class GivesEveryStep(Protocol):
    """What a backend offers besides `Backend` while its loop is "steps": detections after each step, in one pass."""

    def detect_every_step(self, frames: NDArray[np.uint8]) -> list[Detections[Array]]:
        """Detections of clips, uint8 [B, F, H, W, 3], after each progressive step, from the first."""


class Backend(Protocol):
    """A loaded model.

    Attributes:
        name: "onnxruntime", "openvino", "torch", "tensorrt", "tensorrt-rtx".
        loop: "fused" (one graph) or "steps" (backbone, step 1, 2, ..., detect).
        config: the model's architecture.
        min_batch: fewest clips of a call.
        max_batch: most clips of a call, or None for any number.
        depth: how many calls may be pending; 1 where `submit` itself computes.
        precision: whose tolerance its results are held to; see `held_to`.
        threads: CPU threads that its library computes with, as the library or the system says; None where neither
            does, and on a GPU.
    """

    name: str
    loop: Loop
    config: StepConfig
    min_batch: int
    max_batch: int | None
    depth: int
    threads: int | None

    @property
    def precision(self) -> Precision:
        """See the class."""

    @property
    def device(self) -> str:
        """What really runs, as the library reports it, and what it has to do without."""

    def submit(self, frames: NDArray[np.uint8]) -> Pending:
        """Starts on clips: uint8 [B, F, H, W, 3] RGB, already checked; results come in the order of the calls."""

    def close(self) -> None:
        """Frees the model and its memory; nothing may be called after."""
