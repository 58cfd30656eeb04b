"""Comparing a graph's outputs with the expected ones, tensor by tensor (torch-free)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from step.bundles.graph_spec import Arrays, Precision
from step.bundles.manifest import ParityRow, Thresholds
from step.parity.tolerances import TOLERANCES, detections_apart

DETECTIONS_APART = "detections apart"
"""What a `ParityRow` of detections has as its tensor: its errors are shares of the rows."""

_SMALLEST_ERROR = 2.0**-20
_DETECTIONS = ("boxes", "scores", "labels", "tube_indices")


class ParityCheck:
    """Makes parity rows for one clip. A value that is not finite never passes.

    Args:
        precision: whose tolerances count.
        clip: what the rows call the clip.
        thresholds: those baked into the graphs.
    """

    def __init__(self, *, precision: Precision, clip: str, thresholds: Thresholds) -> None:
        self._tolerance = TOLERANCES[precision]
        self.precision = precision
        self._clip = clip
        self._thresholds = thresholds

    def features(self, graph: str, tensor: str, found: NDArray[Any], expected: NDArray[Any]) -> ParityRow:
        """Features or context; the tolerance is relative to the largest expected value."""
        # The least error that half precision can tell from none keeps models with vanishing features comparable.
        allowed = max(self._tolerance.features * float(np.abs(expected).max()), _SMALLEST_ERROR)
        return self._row(graph, tensor, found, expected, allowed)

    def scores(self, graph: str, tensor: str, found: NDArray[Any], expected: NDArray[Any]) -> ParityRow:
        """Probabilities."""
        return self._row(graph, tensor, found, expected, self._tolerance.scores)

    def boxes(self, graph: str, tensor: str, found: NDArray[Any], expected: NDArray[Any]) -> ParityRow:
        """Boxes in px."""
        return self._row(graph, tensor, found, expected, self._tolerance.boxes_px)

    def detections(self, graph: str, found: Arrays, expected: Arrays) -> ParityRow:
        """Share of the detections that one side has and the other has not; see `detections_apart`.

        Args:
            graph: what the row calls the graph.
            found, expected: boxes [B, M, 4], scores, labels, tube_indices [B, M].
        """
        apart = [float("inf")]
        if all(np.isfinite(side[name]).all() for side in (found, expected) for name in ("boxes", "scores")):
            apart = [
                detections_apart(
                    {name: found[name][clip] for name in _DETECTIONS},
                    {name: expected[name][clip] for name in _DETECTIONS},
                    score_tolerance=self._tolerance.scores,
                    score_threshold=self._thresholds.score_threshold,
                    nms_iou=self._thresholds.nms_iou,
                )
                for clip in range(len(expected["scores"]))
            ]
        allowed = 1 - self._tolerance.rows_matched
        return ParityRow(
            graph=graph,
            clip=self._clip,
            tensor=DETECTIONS_APART,
            max_error=max(apart),
            mean_error=float(np.mean(apart)),
            tolerance=allowed,
            passed=max(apart) <= allowed,
        )

    def _row(self, graph: str, tensor: str, found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> ParityRow:
        with np.errstate(invalid="ignore"):  # inf - inf
            error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        largest = float(error.max())  # NaN if any value is NaN
        finite = bool(np.isfinite(largest))
        return ParityRow(
            graph=graph,
            clip=self._clip,
            tensor=tensor,
            max_error=largest if finite else float("inf"),
            mean_error=float(error.mean()) if finite else float("inf"),
            tolerance=tolerance,
            passed=finite and largest <= tolerance,
        )
