"""Scores every step while a model is trained: frame-mAP by the project's own evaluator.

Shape legend: B clips.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from step.config import StepConfig
from step.data.ava_dataset import AvaDataset
from step.evaluation.ava_csv import read_boxes
from step.evaluation.ava_rows import Row, detection_rows, write_rows
from step.evaluation.scoring import Score, ScoringOptions, score
from step.files.atomic import atomic_path
from step.models.detector import StepDetector
from step.training.samples.batch import Batch
from step.training.samples.loading import load_batches

RowsOf = Callable[[StepDetector, Batch], list[list[Row]]]
_THRESHOLD, _NMS_IOU, _MOST = 0.01, 0.4, 300


@dataclass(frozen=True)
class Shard:
    """Names one of several processes, which share the clips.

    Attributes:
        rank: its number, from 0; it runs the clips `rank`, `rank + world`, `rank + 2 * world`, ...
        world: how many processes there are.
        wait: returns when all of them have called it.
    """

    rank: int = 0
    world: int = 1
    wait: Callable[[], Any] = lambda: None


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Says how a model is run on a data set.

    Attributes:
        batch: clips at a time.
        workers: processes that load.
        shard: this process, where several share the work.
        rows_of: gives rows of AVA's csv after every step of a batch; None for detections.
    """

    batch: int
    workers: int = 0
    shard: Shard = Shard()
    rows_of: RowsOf | None = None


def evaluate(
    detector: StepDetector,
    dataset: AvaDataset,
    truth: Path,
    folder: Path,
    *,
    options: EvaluationOptions,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[int, Score]:
    """Scores every step on a data set.

    Args:
        detector: on its device; is in eval mode afterwards.
        dataset: with the resizing to the model's input as its transform.
        truth: its csv.
        folder: for results_step<n>.csv, in AVA's format.
        options: how the model is run.
        progress: is called with how many clips are done, of how many.

    Returns:
        The score after each step, from 1.
    """
    shard, rows_of = options.shard, options.rows_of or detected_rows
    detector.eval()
    folder.mkdir(parents=True, exist_ok=True)
    device = next(detector.parameters()).device
    steps = range(1, detector.config.num_steps + 1)
    mine = list(range(shard.rank, len(dataset), shard.world))
    order = [mine[i : i + options.batch] for i in range(0, len(mine), options.batch)]
    rows: dict[int, list[Row]] = {step: [] for step in steps}
    done = 0
    for clips in load_batches(dataset, order, workers=options.workers):
        for step, found in zip(steps, rows_of(detector, clips.to(device)), strict=True):
            rows[step] += found
        done += len(clips.ids)
        progress(done, len(mine))
    for step in steps:
        with _part(folder, step, shard.rank).open("w", newline="") as file:
            write_rows(file, rows[step])
    shard.wait()
    scores = {step: _score(folder, step, truth, detector.config, shard) for step in steps}
    shard.wait()
    return scores


def detected_rows(detector: StepDetector, clips: Batch) -> list[list[Row]]:
    """Returns rows of AVA's csv after every step of a batch."""
    rows: list[list[Row]] = []
    with torch.inference_mode():
        for output in detector(clips.frames):
            found = detector.select(output, score_threshold=_THRESHOLD, nms_iou=_NMS_IOU, max_detections=_MOST)
            rows.append([])
            for clip, (video, second) in enumerate(clips.ids):
                count = int(found.counts[clip])
                columns = (
                    found.boxes[clip, :count].clamp(0, 1),
                    found.labels[clip, :count],
                    found.scores[clip, :count],
                )
                rows[-1] += detection_rows(video, second, *(column.cpu().numpy() for column in columns))
    return rows


def _part(folder: Path, step: int, rank: int) -> Path:
    return folder / f".step{step}.{rank}.csv"


def _score(folder: Path, step: int, truth: Path, config: StepConfig, shard: Shard) -> Score:
    """Scores all processes' rows after a step; the first process writes them to one file."""
    parts = [_part(folder, step, rank) for rank in range(shard.world)]
    results = folder / f"results_step{step}.csv"
    if shard.rank == 0:
        with atomic_path(results) as scratch:
            scratch.write_text("".join(part.read_text() for part in parts))
        for part in parts:
            part.unlink()
    shard.wait()
    names = {label: config.class_name(label) for label in config.class_ids}
    tables = read_boxes(truth, last="person"), read_boxes(results, last="score")
    return score(*tables, names=names, options=ScoringOptions())
