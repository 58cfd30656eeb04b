"""mAP parity: the same data set through PyTorch and through every exported form, scored alike.

Source: SPEC.md, "Evaluation".
"""

import contextlib
import statistics
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from step.bundles.graph_spec import Precision
from step.bundles.manifest import read_bundle
from step.data.dataset_folder import DatasetFolder
from step.errors import StepError
from step.evaluation.box_table import BoxTable, read_boxes
from step.evaluation.frame_map import best_truth
from step.evaluation.scoring import Score, frame_boxes, score_files
from step.parity.tolerances import TOLERANCES
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BackendName
from step_runtime.detector import Detector
from step_runtime.evaluation.dataset_run import write_results

_IOU = 0.5
_SAME_BOX_IOU = 0.9


@dataclass(frozen=True)
class MapTolerance:
    """Largest differences from PyTorch's average precisions.

    Attributes:
        mean: of the mAP of any step.
        per_class: of any class's average precision.
    """

    mean: float
    per_class: float


DEFAULT_TOLERANCES: dict[Precision, MapTolerance] = {
    "fp32": MapTolerance(mean=0.001, per_class=0.02),
    "fp16": MapTolerance(mean=0.005, per_class=0.02),
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of running the model.

    Attributes:
        model: a bundle, or the checkpoint for PyTorch.
        backend: what runs it.
        loop: which graphs; None for PyTorch.
        precision: of the networks.
    """

    model: Path
    backend: BackendName
    loop: Loop | None
    precision: Precision

    @property
    def name(self) -> str:
        """As it is printed."""
        return " ".join(part for part in (self.backend, self.loop, self.precision) if part)


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """What came of one way.

    Attributes:
        way: which.
        precision: whose tolerance it is held to; see `step.parity.tolerances.held_to`.
        mean_ap: mAP after each progressive step that was run, by its number.
        worst_mean, worst_class: largest difference from PyTorch of a step's mAP, of a class's average precision.
        matched: share of PyTorch's detections after the last step that are there with the same box, class and score.
        latency_ms: median time of a clip, decoding not counted.
        problem: why it could not be run; the numbers are then empty.
    """

    way: Way
    precision: Precision
    mean_ap: dict[int, float] = field(default_factory=dict)
    worst_mean: float = 0.0
    worst_class: float = 0.0
    matched: float = 0.0
    latency_ms: float = 0.0
    problem: str | None = None

    def passed(self, tolerances: dict[Precision, MapTolerance]) -> bool:
        """Whether it was run and is within the tolerance of its precision."""
        tolerance = tolerances[self.precision]
        within = self.worst_mean <= tolerance.mean and self.worst_class <= tolerance.per_class
        return self.problem is None and within


def find_ways(
    bundles: list[Path],
    checkpoint: Path,
    *,
    backends: list[BackendName],
    loops: list[Loop],
    precisions: list[Precision],
) -> list[Way]:
    """Every combination that was asked for; PyTorch on the checkpoint, which all are compared with, comes first.

    Raises:
        StepError: a bad bundle, or one of a precision that no bundle has.
    """
    ways = [Way(model=checkpoint, backend="torch", loop=None, precision="fp32")]
    found = {read_bundle(bundle).precision: bundle for bundle in bundles}
    if len(found) != len(bundles):
        raise StepError(f"several of {', '.join(map(str, bundles))} have the same precision; give one of each")
    for precision in precisions:
        if precision not in found:
            raise StepError(
                f"--precisions asks for {precision}, which no bundle has; export one: step-export {checkpoint} "
                f"--precision {precision} -o BUNDLE, and name it too"
            )
        ways += [
            Way(model=found[precision], backend=backend, loop=loop, precision=precision)
            for backend in backends
            if backend != "torch"
            for loop in loops
        ]
    return ways


def compare_map(
    ways: list[Way],
    data: DatasetFolder,
    *,
    steps: list[int],
    device: str = "auto",
    progress: Callable[[Way, int, int, int], None] = lambda _way, _step, _done, _total: None,
) -> list[ParityRow]:
    """Runs every way on a data set and compares it with the first, which is computed in float32 on a GPU, too.

    Args:
        ways: see `find_ways`.
        data: the data set.
        steps: numbers of progressive steps to score after; a fused graph gives only the last.
        device: for the backends that have a choice.
        progress: is told the way, the step, and how many key frames are done of how many.

    Returns:
        A row per way. One that cannot be run has its problem in its row.

    Raises:
        StepError: the first way cannot be run.
    """
    rows: list[ParityRow] = []
    with tempfile.TemporaryDirectory() as scratch:
        expected: dict[int, tuple[Score, BoxTable]] = {}
        for number, way in enumerate(ways):
            found: dict[int, tuple[Score, BoxTable]] = {}
            times_s: list[float] = []
            precision = way.precision
            try:
                for step in steps[-1:] if way.loop == "fused" else steps:
                    output = Path(scratch) / f"{number}-{step}.csv"
                    whole = way.loop == "fused"
                    opened = Detector.open(
                        way.model, way.backend, loop=way.loop, num_steps=None if whole else step, device=device
                    )
                    with opened as detector, _as_reference(way):
                        precision = detector.backend.precision
                        report = _reporter(progress, way, step)
                        times_s = write_results(detector, data, output, progress=report)
                    scored = score_files(output, data.truth, label_map=data.label_map, exclude=data.exclude)
                    found[step] = scored, read_boxes(output, last="score")
            except StepError as error:
                if not expected:
                    raise
                rows.append(ParityRow(way=way, precision=precision, problem=str(error)))
                continue
            expected = expected or found
            rows.append(_row(way, precision, found, expected, times_s))
    return rows


def _as_reference(way: Way) -> AbstractContextManager[None]:
    if way.backend != "torch":
        return contextlib.nullcontext()
    from step.models.exact_float32 import exact_float32

    return exact_float32()


def _reporter(progress: Callable[[Way, int, int, int], None], way: Way, step: int) -> Callable[[int, int], None]:
    return lambda done, total: progress(way, step, done, total)


def _row(
    way: Way,
    precision: Precision,
    found: dict[int, tuple[Score, BoxTable]],
    expected: dict[int, tuple[Score, BoxTable]],
    times_s: list[float],
) -> ParityRow:
    apart = [
        abs(result.average_precision - expected[step][0].results[_IOU][label].average_precision)
        for step, (score, _) in found.items()
        for label, result in score.results[_IOU].items()
    ]
    last = max(found)
    tolerance = TOLERANCES[precision].scores
    return ParityRow(
        way=way,
        precision=precision,
        mean_ap={step: score.mean_ap(_IOU) for step, (score, _) in found.items()},
        worst_mean=max(abs(s.mean_ap(_IOU) - expected[step][0].mean_ap(_IOU)) for step, (s, _) in found.items()),
        worst_class=max(apart, default=0.0),
        matched=matched_share(found[last][1], expected[last][1], score_tolerance=tolerance),
        latency_ms=1e3 * statistics.median(times_s) if times_s else 0.0,
    )


def matched_share(found: BoxTable, expected: BoxTable, *, score_tolerance: float) -> float:
    """Share of the expected detections whose box, class and score are among those found; 1 where none is expected."""
    if not len(expected):
        return 1.0
    there, wanted = frame_boxes(found, expected)
    row, overlap = best_truth(there, wanted)
    score = np.where(row >= 0, found.last[row] if len(found) else np.nan, np.nan)
    same = (overlap >= _SAME_BOX_IOU) & (np.abs(score - expected.last) <= score_tolerance + 1e-9)
    return float(same.mean())
