"""The one interface behind which every way of running the model stands."""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step.detections import Detections

Loop = Literal["fused", "steps"]
Array = NDArray[np.generic]


class Backend(Protocol):
    """A loaded model.

    Attributes:
        name: "onnxruntime", "torch", ...
        device: what really runs, as the library reports it.
        loop: "fused" (one graph) or "steps" (backbone, step 1, 2, ..., detect).
        config: the model's architecture.
        batch: clips that a call must have, or None for any number.
    """

    name: str
    device: str
    loop: Loop
    config: StepConfig
    batch: int | None

    def detect(self, frames: NDArray[np.uint8]) -> Detections[Array]:
        """Detections of clips: uint8 [B, F, H, W, 3] RGB, already checked."""

    def close(self) -> None:
        """Frees the sessions and their memory; nothing may be called after."""
