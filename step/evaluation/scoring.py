"""Scores a file of results against a file of ground truth, with the conventions as options (torch-free)."""

import heapq
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from step.classes import CHALLENGE_CLASS_IDS, class_group
from step.errors import ArgumentError, StepError
from step.evaluation.ava_csv import read_boxes, read_frames
from step.evaluation.box_table import BoxTable, find_duplicate
from step.evaluation.frame_map import Boxes, ClassResult, frame_ap, mean_ap
from step.evaluation.label_map import read_label_map

FramesWithoutTruth = Literal["count", "drop"]
_TIMES_A_SECOND = 1000  # AVA's seconds are whole; step-run's key frames between them have milliseconds


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """Says how results are scored; the defaults are the STEP release's.

    Attributes:
        ious: least overlaps, a mean for each.
        cap: best detections of a frame that count, over all classes; None for all. The challenge's is 50.
        frames_without_truth: whether detections in key frames without ground truth are wrong ("count") or do not count
            ("drop", the challenge's). Ground truth of classes that do not count is none.
    """

    ious: tuple[float, ...] = (0.5,)
    cap: int | None = None
    frames_without_truth: FramesWithoutTruth = "count"

    def __post_init__(self) -> None:
        for iou in self.ious:
            if not 0 < iou <= 1:
                raise ArgumentError(f"`ious` is {iou}; it must be above 0 and at most 1")
        if not self.ious or len({f"{iou:g}" for iou in self.ious}) != len(self.ious):
            raise ArgumentError(f"`ious` is {','.join(map(str, self.ious))}; give each overlap once")
        if self.cap is not None and self.cap < 1:
            raise ArgumentError(f"`cap` is {self.cap}; it must be at least 1")


@dataclass(frozen=True)
class Side:
    """Holds what was scored of one file.

    Attributes:
        table: all rows of the file.
        rows: int64 [R], those that were scored.
        boxes: [R] the same with numbers of key frames; `ClassResult.rows` are places here.
    """

    table: BoxTable
    rows: NDArray[np.int64]
    boxes: Boxes

    def key_frame(self, place: int) -> tuple[str, float]:
        """Returns video and second of a scored row."""
        row = self.rows[place]
        return self.table.videos[self.table.video[row]], float(self.table.second[row])


@dataclass(frozen=True, kw_only=True)
class Score:
    """Holds what came of scoring.

    Attributes:
        truth, detections: the scored rows.
        results: per IoU and class id.
        names: class names by id; empty without a label map.
        counts: of frames and boxes, what was dropped and why.
        options: as it was scored.
        notes: what a reader should know, one line each.
    """

    truth: Side
    detections: Side
    results: dict[float, dict[int, ClassResult]]
    names: dict[int, str]
    counts: dict[str, int]
    options: ScoringOptions
    notes: tuple[str, ...] = field(default=())

    def mean_ap(self, iou: float) -> float:
        """Returns frame-mAP."""
        return mean_ap(self.results[iou])

    def group_ap(self, iou: float) -> dict[str, float]:
        """Returns the mean average precision of AVA's kinds of actions."""
        groups: dict[str, dict[int, ClassResult]] = {}
        for label, result in self.results[iou].items():
            groups.setdefault(class_group(label), {})[label] = result
        return {group: mean_ap(results) for group, results in groups.items()}

    def as_json(self) -> dict[str, Any]:
        """Returns what `step-eval --json` writes."""
        return {
            "mAP": {f"{iou:g}": self.mean_ap(iou) for iou in self.results},
            "per_class": {
                f"{iou:g}": {str(label): result.average_precision for label, result in classes.items()}
                for iou, classes in self.results.items()
            },
            "per_group": {f"{iou:g}": self.group_ap(iou) for iou in self.results},
            "counts": self.counts,
            "options": asdict(self.options),
        }


def score_files(
    results: Path,
    truth: Path,
    *,
    label_map: Path | None = None,
    exclude: Path | None = None,
    options: ScoringOptions | None = None,
) -> Score:
    """Scores results in AVA's format.

    Args:
        results: csv with scores.
        truth: csv of ground truth.
        label_map: pbtxt of the classes that count; without it, every class that has ground truth.
        exclude: csv of key frames (video, second) that do not count on either side.
        options: conventions.

    Raises:
        StepError: a file that cannot be read, or the first line of one that is wrong.
    """
    options = options or ScoringOptions()
    names = {} if label_map is None else read_label_map(label_map)
    truth_table, result_table = read_boxes(truth, last="person"), read_boxes(results, last="score")
    for table in (truth_table, result_table):
        repeated = find_duplicate(table)
        if repeated is not None:
            raise StepError(f"{table.where(repeated[0])}: repeats line {table.lines[repeated[1]]}; remove one")
    excluded = () if exclude is None else read_frames(exclude)
    return score(truth_table, result_table, names=names, excluded=excluded, options=options)


def score(
    truth: BoxTable,
    results: BoxTable,
    *,
    names: dict[int, str],
    excluded: tuple[tuple[str, float], ...] = (),
    options: ScoringOptions,
) -> Score:
    """Scores tables; see `score_files`."""
    frames = _Frames(truth, results, excluded)
    true_boxes, found_boxes = frames.boxes(truth), frames.boxes(results, scores=True)
    counts = {"truth boxes": len(truth), "detections": len(results), "key frames": frames.count_truth()}
    labels = sorted(names) if names else np.unique(truth.label).tolist()
    keep_truth = frames.included(true_boxes.frame)
    keep_found = frames.included(found_boxes.frame)
    counts["in excluded key frames"] = int((~keep_truth).sum() + (~keep_found).sum())
    of_class_truth, of_class_found = (np.isin(boxes.label, labels) for boxes in (true_boxes, found_boxes))
    counts["truth boxes of other classes"] = int((keep_truth & ~of_class_truth).sum())
    counts["detections of other classes"] = int((keep_found & ~of_class_found).sum())
    true_rows = np.flatnonzero(keep_truth & of_class_truth)
    found_rows = np.flatnonzero(keep_found & of_class_found)
    without = ~np.isin(found_boxes.frame[found_rows], true_boxes.frame[true_rows])
    counts["detections in key frames without truth"] = int(without.sum())
    if options.frames_without_truth == "drop":
        found_rows = found_rows[~without]
    if options.cap is not None:
        within = _best_of_frame(found_boxes.take(found_rows), options.cap)
        counts["detections beyond the cap"] = len(found_rows) - len(within)
        found_rows = found_rows[within]
    # As the challenge's evaluator: a detection without area is none, after it has taken its place under the cap.
    corners = found_boxes.boxes_xyxy[found_rows]
    has_area = (corners[:, 2:] > corners[:, :2]).all(1)
    counts["detections without area"] = int((~has_area).sum())
    found_rows = found_rows[has_area]
    true_boxes, found_boxes = true_boxes.take(true_rows), found_boxes.take(found_rows)
    counts["detections scored"], counts["truth boxes scored"] = len(found_rows), len(true_rows)
    return Score(
        truth=Side(truth, true_rows, true_boxes),
        detections=Side(results, found_rows, found_boxes),
        results={iou: frame_ap(true_boxes, found_boxes, iou=iou) for iou in options.ious},
        names=names,
        counts=counts,
        options=options,
        notes=_notes(truth, results, names, counts),
    )


def frame_boxes(first: BoxTable, second: BoxTable) -> tuple[Boxes, Boxes]:
    """Returns the rows of two tables of results, with the same numbers for the same key frames."""
    frames = _Frames(first, second, ())
    return frames.boxes(first, scores=True), frames.boxes(second, scores=True)


def _notes(truth: BoxTable, results: BoxTable, names: dict[int, str], counts: dict[str, int]) -> tuple[str, ...]:
    notes = []
    challenge = len(set(names) & set(CHALLENGE_CLASS_IDS))
    if names and challenge < len(CHALLENGE_CLASS_IDS):
        notes.append(f"the label map has {challenge} of the challenge's 60 classes; only its own {len(names)} count")
    if not len(truth):
        notes.append("the ground truth has no boxes: there is nothing to find, and mAP is 0")
    if not len(results):
        notes.append("the results have no detections: mAP is 0")
    known = set(truth.videos) | {video for video, _ in truth.empty}
    unknown = [video for video in results.videos if video not in known]
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        notes.append(f"{len(unknown)} of {len(results.videos)} videos of the results are not in the truth: {shown}")
    if counts["detections in key frames without truth"]:
        notes.append(f"{counts['detections in key frames without truth']} detections lie in key frames without truth")
    return tuple(notes)


class _Frames:
    """Numbers the key frames of two tables."""

    def __init__(self, truth: BoxTable, results: BoxTable, excluded: tuple[tuple[str, float], ...]) -> None:
        videos = sorted({*truth.videos, *results.videos, *(video for video, _ in excluded)})
        self._index = {video: index for index, video in enumerate(videos)}
        self._excluded = np.unique(self._numbers([v for v, _ in excluded], np.array([s for _, s in excluded])))
        self._truth = np.unique(self._of(truth))

    def boxes(self, table: BoxTable, *, scores: bool = False) -> Boxes:
        """Returns a table's rows with their frames' numbers."""
        return Boxes(self._of(table), table.label, table.boxes_xyxy, table.last if scores else None)

    def included(self, frame: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Marks the frames that are not excluded."""
        return np.isin(frame, self._excluded, invert=True)

    def count_truth(self) -> int:
        """Counts the frames with truth that are not excluded."""
        return int(self.included(self._truth).sum())

    def _of(self, table: BoxTable) -> NDArray[np.int64]:
        index = np.array([self._index[video] for video in table.videos], np.int64)
        return _frame_number(index[table.video] if len(table) else np.zeros(0, np.int64), table.second)

    def _numbers(self, videos: list[str], second: NDArray[np.float64]) -> NDArray[np.int64]:
        return _frame_number(np.array([self._index[video] for video in videos], np.int64), second)


def _frame_number(video: NDArray[np.int64], second: NDArray[np.float64]) -> NDArray[np.int64]:
    return video * (1 << 36) + np.rint(np.asarray(second, np.float64) * _TIMES_A_SECOND).astype(np.int64)


def _best_of_frame(boxes: Boxes, cap: int) -> NDArray[np.int64]:
    """Picks the rows that the challenge's reader keeps of each frame, in its order: by frame, best first.

    It takes rows in the file's order. The first `cap` of a frame are taken as they come; after that a row takes the
    place of the least one (by score, then class id, y1, x1, y2, x2) if its score is greater than that one's. So it
    depends on the order of the rows which of equal scores stay, and equal scores lie as in the heap.

    Source: `read_csv` of the ActivityNet 2018 challenge's `get_ava_performance.py`.
    """
    assert boxes.score is not None
    x1, y1, x2, y2 = boxes.boxes_xyxy.T
    keys = list(zip(*(column.tolist() for column in (boxes.score, boxes.label, y1, x1, y2, x2)), strict=True))
    kept: dict[int, list[tuple[tuple[float, ...], int]]] = {}
    for row, frame in enumerate(boxes.frame.tolist()):
        heap = kept.setdefault(frame, [])
        if len(heap) < cap:
            heapq.heappush(heap, (keys[row], row))
        elif keys[row][0] > heap[0][0][0]:
            heapq.heapreplace(heap, (keys[row], row))
    rows = (row for heap in kept.values() for _, row in sorted(heap, key=lambda entry: -entry[0][0]))
    return np.fromiter(rows, np.int64)
