"""What is said of measured times.

Source: trtexec's percentiles (TensorRT, samples/common/sampleReporting.cpp, findPercentile).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES, _CONFIDENCE = 2000, 0.95


@dataclass(frozen=True)
class Ratio:
    """How two medians relate.

    Attributes:
        value: the ratio.
        low, high: bounds of a 95 % bootstrap interval; None where there was one round, which has no spread.
    """

    value: float
    low: float | None
    high: float | None


def percentile(times_s: Sequence[float], percent: float) -> float:
    """The largest time but for (100 - percent) % of them, rounded down, as trtexec has it."""
    ordered = sorted(times_s)
    excluded = int((1 - percent / 100) * len(ordered))
    return ordered[max(len(ordered) - 1 - excluded, 0)]


def median_ratio(times_s: Sequence[Sequence[float]], baseline_s: Sequence[Sequence[float]], *, seed: int = 0) -> Ratio:
    """Median of the times over the baseline's, measured in rounds.

    Args:
        times_s, baseline_s: times of each round; the same number of rounds, which are resampled together, so that what
            slows the machine down for a while slows both.
        seed: of the resampling.
    """
    rounds = min(len(times_s), len(baseline_s))
    value = float(_median(times_s) / _median(baseline_s))
    if rounds < 2:
        return Ratio(value, None, None)
    state = np.random.RandomState(seed)
    ratios = []
    for _ in range(_RESAMPLES):
        chosen = state.randint(0, rounds, rounds)
        above, below = (_median([side[i] for i in chosen]) for side in (times_s, baseline_s))
        ratios.append(above / below)
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Ratio(value, float(low), float(high))


def interval(low: float | None, high: float | None) -> str:
    """As tables have it; empty where there is none."""
    return "" if low is None or high is None else f"{low:.3f}-{high:.3f}"


def _median(rounds_s: Sequence[Sequence[float]]) -> float:
    return float(np.median(np.concatenate([np.asarray(round) for round in rounds_s])))
