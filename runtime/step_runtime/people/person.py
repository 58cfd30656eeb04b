"""Somebody at a key frame."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DECIMALS, DECIMALS_PX, DECIMALS_S = 5, 2, 6
"""How far scores and shares of the picture, pixels, and times of key frames are rounded in everything written."""
_TUBE_DECIMALS_S = 5


@dataclass(frozen=True)
class Person:
    """One box and everything it does; the arrays are the caller's own, contiguous, and change with no later call.

    Attributes:
        box: float32 [4], x1, y1, x2, y2 in shares of the picture, at the key frame.
        box_px: float64 [4], the same in pixels of the source's picture.
        actions: (class id, score), best first.
        names: what the actions are called, in their order.
        time_s: seconds of the key frame.
        tube: float32 [T', 4] in shares of the picture, where the person is around the key frame.
        tube_times_s: T' times, seconds, of the tube's boxes.
    """

    box: NDArray[np.float32]
    box_px: NDArray[np.float64]
    actions: tuple[tuple[int, float], ...]
    names: tuple[str, ...]
    time_s: float
    tube: NDArray[np.float32] = field(repr=False)
    tube_times_s: tuple[float, ...] = field(repr=False)

    @property
    def score(self) -> float:
        """The score of the best action."""
        return self.actions[0][1]

    @property
    def name(self) -> str:
        """The name of the best action."""
        return self.names[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, rounded: an entry of "boxes" of a line of detections.jsonl."""
        return {
            "box": _rounded(self.box),
            "box_px": _rounded(self.box_px, DECIMALS_PX),
            "actions": [
                {"id": label, "name": name, "score": round(score, DECIMALS)}
                for (label, score), name in zip(self.actions, self.names, strict=True)
            ],
            "tube": {
                "times_s": [round(time_s, _TUBE_DECIMALS_S) for time_s in self.tube_times_s],
                "boxes": [_rounded(box) for box in self.tube],
            },
        }


def _rounded(values: NDArray[np.floating[Any]], decimals: int = DECIMALS) -> list[float]:
    return [round(float(value), decimals) for value in values]
