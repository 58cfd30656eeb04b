"""Compares mAP: the same data set through PyTorch and through every exported form, scored alike.

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
from step.bundles.manifest import Thresholds, read_bundle
from step.data.dataset_folder import DatasetFolder
from step.errors import ArgumentError, StepError
from step.evaluation.ava_csv import read_boxes
from step.evaluation.box_table import BoxTable
from step.evaluation.frame_map import best_truth
from step.evaluation.scoring import Score, frame_boxes, score_files
from step.parity.tolerances import TOLERANCES
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BackendName, open_torch
from step_runtime.detector import Detector
from step_runtime.evaluation.dataset_run import write_results, write_results_of_each_step

Results = dict[int, tuple[Score, BoxTable]]
"""Scores and detections by step."""
_IOU = 0.5
_SAME_BOX_IOU = 0.9


@dataclass(frozen=True)
class MapTolerance:
    """Bounds the differences from PyTorch's average precisions.

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
class ParityConfiguration:
    """Says how a model is run: what, by which library, with which graphs.

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
        """Returns the name under which it is printed."""
        return " ".join(part for part in (self.backend, self.loop, self.precision) if part)


ProgressCallback = Callable[[ParityConfiguration, int, int], None]


@dataclass(frozen=True, kw_only=True)
class MapParityRow:
    """Holds what came of one configuration.

    Attributes:
        configuration: which.
        precision: whose tolerance it is held to; see `step.parity.tolerances.held_to`.
        mean_ap: mAP after each progressive step that was run, by its number.
        worst_mean, worst_class: largest difference from PyTorch of a step's mAP, of a class's average precision.
        matched: share of PyTorch's detections after the last step that are there with the same box, class and score.
        latency_ms: median time of a clip, decoding not counted; with the detection after each step that is scored
            in the same pass.
        problem: why it could not be run; the numbers are then empty.
    """

    configuration: ParityConfiguration
    precision: Precision
    mean_ap: dict[int, float] = field(default_factory=dict)
    worst_mean: float = 0.0
    worst_class: float = 0.0
    matched: float = 0.0
    latency_ms: float = 0.0
    problem: str | None = None

    def passed(self, tolerances: dict[Precision, MapTolerance]) -> bool:
        """Says whether it was run and is within the tolerance of its precision."""
        tolerance = tolerances[self.precision]
        within = self.worst_mean <= tolerance.mean and self.worst_class <= tolerance.per_class
        return self.problem is None and within


def find_configurations(
    bundles: list[Path],
    checkpoint: Path,
    *,
    backends: list[BackendName],
    loops: list[Loop],
    precisions: list[Precision],
) -> list[ParityConfiguration]:
    """Returns every combination that was asked for, and first PyTorch on the checkpoint, which all are compared with.

    Raises:
        StepError: a bad bundle, or one of a precision that no bundle has.
    """
    configurations = [ParityConfiguration(model=checkpoint, backend="torch", loop=None, precision="fp32")]
    found = {read_bundle(bundle).precision: bundle for bundle in bundles}
    if len(found) != len(bundles):
        raise StepError(f"several of {', '.join(map(str, bundles))} have the same precision; give one of each")
    for precision in precisions:
        if precision not in found:
            raise ArgumentError(
                f"`precisions` asks for {precision}, which no bundle has; export one: step-export {checkpoint} "
                f"--precision {precision} -o BUNDLE, and name it too"
            )
        configurations += [
            ParityConfiguration(model=found[precision], backend=backend, loop=loop, precision=precision)
            for backend in backends
            if backend != "torch"
            for loop in loops
        ]
    return configurations


def compare_map(
    configurations: list[ParityConfiguration],
    data: DatasetFolder,
    *,
    steps: list[int],
    thresholds: Thresholds,
    device: str = "auto",
    progress: ProgressCallback = lambda _configuration, _done, _total: None,
) -> list[MapParityRow]:
    """Runs every configuration on a data set and compares it with the first, computed in float32 on a GPU, too.

    Args:
        configurations: see `find_configurations`.
        data: the data set.
        steps: numbers of progressive steps to score after, in order; a fused graph gives only the last.
        thresholds: baked into the graphs, for PyTorch.
        device: for the backends that have a choice.
        progress: is called with the configuration, and how many key frames are done of how many.

    Returns:
        A row per configuration. One that cannot be run has its problem in its row.

    Raises:
        StepError: the first configuration cannot be run.
    """
    rows: list[MapParityRow] = []
    with tempfile.TemporaryDirectory() as scratch:
        expected: Results = {}
        for number, configuration in enumerate(configurations):
            precision = configuration.precision
            folder = Path(scratch) / str(number)
            folder.mkdir()
            try:
                with _as_reference(configuration):
                    wanted = steps[-1:] if configuration.loop == "fused" else steps
                    files, precision, times_s = _run(
                        configuration, data, folder, wanted, thresholds=thresholds, device=device, progress=progress
                    )
                found: Results = {
                    step: (_scored(file, data), read_boxes(file, last="score")) for step, file in files.items()
                }
            except StepError as error:
                if not expected:
                    raise
                rows.append(MapParityRow(configuration=configuration, precision=precision, problem=str(error)))
                continue
            expected = expected or found
            rows.append(_row(configuration, precision, found, expected, times_s))
    return rows


def _run(
    configuration: ParityConfiguration,
    data: DatasetFolder,
    folder: Path,
    steps: list[int],
    *,
    thresholds: Thresholds,
    device: str,
    progress: ProgressCallback,
) -> tuple[dict[int, Path], Precision, list[float]]:
    """Writes results by step, in one pass where the library says what each step gives.

    Returns:
        Files by step, whose tolerance counts, and seconds of each clip.
    """

    def report(done: int, total: int) -> None:
        progress(configuration, done, total)

    whole = None if configuration.loop == "fused" else steps[-1]
    with _open(configuration, whole, thresholds, device) as detector:
        precision = detector.backend.precision
        if len(steps) > 1 and detector.gives_every_step:
            files = [folder / f"{step}.csv" for step in range(1, steps[-1] + 1)]
            times_s = write_results_of_each_step(detector, data, files, progress=report)
            return {step: files[step - 1] for step in steps}, precision, times_s
        last = folder / f"{steps[-1]}.csv"
        times_s = write_results(detector, data, last, progress=report)
    files_by_step = {steps[-1]: last}
    for step in steps[:-1]:
        with _open(configuration, step, thresholds, device) as detector:
            write_results(detector, data, folder / f"{step}.csv", progress=report)
        files_by_step[step] = folder / f"{step}.csv"
    return dict(sorted(files_by_step.items())), precision, times_s


def _open(configuration: ParityConfiguration, num_steps: int | None, thresholds: Thresholds, device: str) -> Detector:
    if configuration.backend != "torch":
        return Detector.open(
            configuration.model, configuration.backend, loop=configuration.loop, num_steps=num_steps, device=device
        )
    return Detector(open_torch(configuration.model, num_steps=num_steps, device=device, thresholds=thresholds))


def _scored(results: Path, data: DatasetFolder) -> Score:
    return score_files(results, data.truth, label_map=data.label_map, exclude=data.exclude)


def _as_reference(configuration: ParityConfiguration) -> AbstractContextManager[None]:
    if configuration.backend != "torch":
        return contextlib.nullcontext()
    from step.models.exact_float32 import exact_float32

    return exact_float32()


def _row(
    configuration: ParityConfiguration,
    precision: Precision,
    found: Results,
    expected: Results,
    times_s: list[float],
) -> MapParityRow:
    apart = [
        abs(result.average_precision - expected[step][0].results[_IOU][label].average_precision)
        for step, (score, _) in found.items()
        for label, result in score.results[_IOU].items()
    ]
    last = max(found)
    tolerance = TOLERANCES[precision].scores
    return MapParityRow(
        configuration=configuration,
        precision=precision,
        mean_ap={step: score.mean_ap(_IOU) for step, (score, _) in found.items()},
        worst_mean=max(abs(s.mean_ap(_IOU) - expected[step][0].mean_ap(_IOU)) for step, (s, _) in found.items()),
        worst_class=max(apart, default=0.0),
        matched=matched_share(found[last][1], expected[last][1], score_tolerance=tolerance),
        latency_ms=1e3 * statistics.median(times_s) if times_s else 0.0,
    )


def matched_share(found: BoxTable, expected: BoxTable, *, score_tolerance: float) -> float:
    """Returns the share of expected detections found with the same box, class and score; 1 if there are none."""
    if not len(expected):
        return 1.0
    there, wanted = frame_boxes(found, expected)
    row, overlap = best_truth(there, wanted)
    score = np.where(row >= 0, found.last[row] if len(found) else np.nan, np.nan)
    same = (overlap >= _SAME_BOX_IOU) & (np.abs(score - expected.last) <= score_tolerance + 1e-9)
    return float(same.mean())
