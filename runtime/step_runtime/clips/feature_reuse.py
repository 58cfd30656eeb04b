"""Backbone features shared between neighbouring key frames, whose clips have most of their frames in common.

The backbone graph runs on overlapping windows; of each the middle feature frames are kept, and every clip's features
are cut from what was kept. This is approximate: a clip that is run by itself has zeros before its first and after its
last frame, where the windows have the video, and has the video where the windows have zeros.
"""

from fractions import Fraction
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step.errors import ArgumentError
from step_runtime.backends.base import Array, Backend, Features, Pending, TakesFeatures
from step_runtime.clips.feature_windows import WindowPlan

Scalar = TypeVar("Scalar", bound=np.generic)

MARGIN = 2
"""Feature frames dropped at each end of a window.

Measured (docs/reuse.md): with 0, 1, 2, 3 dropped, mAP on toy AVA is 9.4, 2.0, 0.6, 1.7 points below that of clips that
are run by themselves, and features on real video with Kinetics weights differ from theirs by 87, 73, 70, 65 %. What 3
gain there they lose in speed: a call then serves one second of video instead of one and two thirds.
"""


def plan_reuse(backend: Backend, config: StepConfig, *, every_s: Fraction | None, margin: int = MARGIN) -> WindowPlan:
    """Whether a backend can share features at these key frames, and with which windows.

    Raises:
        StepError: a backend that has no step loop, or see `WindowPlan.of`.
    """
    if backend.loop != "steps" or not isinstance(backend, TakesFeatures):
        raise ArgumentError(
            f"`reuse_backbone` with the {backend.loop} loop of {backend.name}; it needs `loop` steps, where the "
            "backbone is a graph of its own"
        )
    return WindowPlan.of(config, every_s=every_s, margin=margin)


class FeatureStore:
    """Feature frames by group, until no clip needs them.

    Args:
        plan: of the windows.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._kept: dict[int, tuple[Array, Array | None]] = {}  # [C, H, W], [1024]; views of what the backend gave

    def add(self, first_group: int, found: Features) -> None:
        """Keeps the middle of a window.

        Args:
            first_group: of the window.
            found: of the window, [1, T, C, H, W] and [1, 1024, T].
        """
        for position in range(self._plan.margin, self._plan.groups - self._plan.margin):
            context = None if found.context is None else found.context[0, :, position]
            self._kept[first_group + position] = (found.features[0, position], context)

    def clip(self, group: int) -> Features | None:
        """A clip's features and context, [1, T, C, H, W] and [1, 1024, T], or None where a window is missing.

        What lies before the clip is forgotten: clips are asked for in order.

        Args:
            group: the clip's first.
        """
        for earlier in [number for number in self._kept if number < group]:
            del self._kept[earlier]
        numbers = range(group, group + self._plan.groups)
        if any(number not in self._kept for number in numbers):
            return None
        features, contexts = zip(*(self._kept[number] for number in numbers), strict=True)
        context = None if contexts[0] is None else np.stack(contexts, axis=1)[None]
        return Features(np.stack(features)[None], context)


def extract_one(backend: Backend, frames: NDArray[np.uint8]) -> Features:
    """Features of one window, uint8 [1, F, H, W, 3], repeated for a backend that takes no fewer than several."""
    found = cast(TakesFeatures, backend).extract(_repeated(frames, backend.min_batch))
    return Features(found.features[:1], None if found.context is None else found.context[:1])


def submit_one(backend: Backend, clip: Features) -> Pending:
    """Starts on the features of one clip, repeated likewise: the first row of the result is its own."""
    context = None if clip.context is None else _repeated(clip.context, backend.min_batch)
    return cast(TakesFeatures, backend).submit_features(Features(_repeated(clip.features, backend.min_batch), context))


def _repeated(rows: NDArray[Scalar], count: int) -> NDArray[Scalar]:
    return rows if count == 1 else np.repeat(rows, count, axis=0)
