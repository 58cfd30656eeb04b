"""The tables of one video: people as step-run's people.parquet has them, and every detection as AVA's rows have it."""

from collections.abc import Iterator
from pathlib import Path

from step.config import StepConfig
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.outputs.parquet_table import ParquetTable
from step_runtime.people.table import COLUMNS, Cell, people_rows

DETECTION_COLUMNS: dict[str, type[Cell]] = {
    "video": str,
    "second": float,
    "x1": float,
    "y1": float,
    "x2": float,
    "y2": float,
    "class_id": int,
    "score": float,
}
"""AVA's row: `second` is the scheduled one; corners are shares of the picture, rounded only when they are printed."""


class VideoTables:
    """Writes one video's tables.

    Args:
        people: where the rows of people go.
        detections: where every detection goes; None for nowhere.
        config: of the model.
        score_threshold: of people.

    Attributes:
        clips, people, rows: key frames, people at them, and rows of people so far.
    """

    def __init__(self, people: Path, detections: Path | None, *, config: StepConfig, score_threshold: float) -> None:
        self._people = ParquetTable(people, COLUMNS)
        self._detections = None if detections is None else ParquetTable(detections, DETECTION_COLUMNS)
        self._config = config
        self._score_threshold = score_threshold
        self.clips = self.people = self.rows = 0

    def add(self, key_frame: KeyFrame) -> None:
        """Adds one key frame.

        Raises:
            OSError: it cannot be written.
        """
        people = key_frame.people(self._score_threshold)
        rows = list(people_rows(people, video=key_frame.video, time_s=key_frame.time_s, frame=key_frame.frame))
        self._people.add(rows)
        if self._detections is not None:
            self._detections.add(_detection_rows(key_frame))
        self.clips += 1
        self.people += len(people)
        self.rows += len(rows)

    def close(self) -> None:
        """Writes what is left, and the files' ends.

        Raises:
            OSError: they cannot be written.
        """
        self._people.close()
        if self._detections is not None:
            self._detections.close()


def _detection_rows(key_frame: KeyFrame) -> Iterator[tuple[Cell, ...]]:
    found = key_frame.detections
    count = int(found.counts[0])
    second = float(key_frame.scheduled_s)
    for box, label, score in zip(
        found.boxes[0, :count].tolist(), found.labels[0, :count].tolist(), found.scores[0, :count].tolist(), strict=True
    ):
        yield (key_frame.video, second, *box, int(label), score)
