"""Writes `detections.jsonl`, `detections.csv`, `people.csv` and `people.parquet`."""

from collections.abc import Sequence
from pathlib import Path

from step.evaluation.ava_rows import detection_rows, rows_text
from step.shown import spreadsheet_cell
from step_runtime.clips.key_frame import KeyFrame, key_frame_json
from step_runtime.outputs.appended_file import AppendedFile
from step_runtime.outputs.parquet_table import ParquetTable
from step_runtime.people.person import Person
from step_runtime.people.table import COLUMNS, Cell, people_rows


class TableWriter:
    """Writes a line per key frame, a row per detection, and a row per person and action.

    detections.jsonl and the tables of people hold people (above the run's score threshold); detections.csv holds every
    detection that the model reports, since frame-mAP wants the low scores too.

    Args:
        folder: where the files go.
        parquet: whether people.parquet is written, which can be read only once it is closed.

    Source: SPEC.md, "Detections of a step" (detections.csv: video, %04d second, coordinates, AVA class id, score).
    """

    def __init__(self, folder: Path, *, parquet: bool = False) -> None:
        self._jsonl = AppendedFile(folder / "detections.jsonl")
        self._csv = AppendedFile(folder / "detections.csv")
        self._people = AppendedFile(folder / "people.csv")
        self._people.append(rows_text([list(COLUMNS)]).encode())
        self._parquet = ParquetTable(folder / "people.parquet", COLUMNS) if parquet else None

    def write(self, key_frame: KeyFrame, people: Sequence[Person]) -> None:
        """Adds one key frame; the growing files have it when this returns.

        Raises:
            OSError: it cannot be written; no file ends within a line.
        """
        found = key_frame.detections
        columns = (values[0, : int(found.counts[0])] for values in (found.boxes, found.labels, found.scores))
        rows = detection_rows(key_frame.video, float(key_frame.scheduled_s), *columns)
        # File names may hold bytes that are no UTF-8; they come out as they are.
        self._csv.append(rows_text(rows).encode(errors="surrogateescape"))
        table = list(people_rows(people, video=key_frame.video, time_s=key_frame.time_s, frame=key_frame.frame))
        cells = (list(map(_cell, row)) for row in table)
        self._people.append(rows_text(cells).encode(errors="surrogateescape"))
        if self._parquet is not None:
            self._parquet.add(table)
        self._jsonl.append((key_frame_json(key_frame, people) + "\n").encode())

    def close(self) -> None:
        """Closes the files.

        Raises:
            OSError: people.parquet cannot be written.
        """
        self._jsonl.close()
        self._csv.close()
        self._people.close()
        if self._parquet is not None:
            self._parquet.close()


def _cell(value: Cell) -> str:
    """Names come from files, and people open the table in a spreadsheet."""
    return spreadsheet_cell(value) if isinstance(value, str) else str(value)
