"""Writes `detections.jsonl` and `detections.csv`."""

import json
from pathlib import Path
from typing import Any

from step.clips import tube_offsets_s
from step.config import StepConfig
from step.evaluation.ava_rows import detection_rows, rows_text
from step_runtime.clips.key_frame import KeyFrame
from step_runtime.outputs.appended_file import AppendedFile
from step_runtime.outputs.people import Person

_DECIMALS = 5


class TableWriter:
    """Writes one line per key frame to a JSONL file and one row per detection to a CSV file.

    The JSONL holds people (merged over classes, above the run's score threshold); the CSV holds every detection that
    the model reports, since frame-mAP wants the low scores too.

    Args:
        folder: where the two files go.
        config: of the model.

    Source: SPEC.md, "Detections of a step" (CSV row: video, %04d second, coordinates, AVA class id, score).
    """

    def __init__(self, folder: Path, *, config: StepConfig) -> None:
        self._config = config
        self._jsonl = AppendedFile(folder / "detections.jsonl")
        self._csv = AppendedFile(folder / "detections.csv")

    def write(self, key_frame: KeyFrame, people: list[Person]) -> None:
        """Adds one key frame; both files have it when this returns.

        Raises:
            OSError: it cannot be written; neither file ends within a line.
        """
        found = key_frame.detections
        columns = (values[0, : int(found.counts[0])] for values in (found.boxes, found.labels, found.scores))
        rows = detection_rows(key_frame.video, float(key_frame.scheduled_s), *columns)
        # File names may hold bytes that are no UTF-8; they come out as they are.
        self._csv.append(rows_text(rows).encode(errors="surrogateescape"))
        self._jsonl.append((json.dumps(_json_line(key_frame, people, self._config)) + "\n").encode())

    def close(self) -> None:
        """Closes both files."""
        self._jsonl.close()
        self._csv.close()


def _json_line(key_frame: KeyFrame, people: list[Person], config: StepConfig) -> dict[str, Any]:
    width, height = key_frame.width_px, key_frame.height_px
    times_s: list[float] = []
    if people:
        offsets_s = tube_offsets_s(len(people[0].tube), config)
        times_s = [round(float(key_frame.time_s) + offset, _DECIMALS) for offset in offsets_s]
    return {
        "video": key_frame.video,
        "time_s": round(float(key_frame.time_s), 6),
        "frame": key_frame.frame,
        "width_px": width,
        "height_px": height,
        "boxes": [
            {
                "box": _rounded(person.box),
                "box_px": _rounded(person.box * (width, height, width, height), 2),
                "actions": [
                    {"id": label, "name": config.class_name(label), "score": round(score, _DECIMALS)}
                    for label, score in person.actions
                ],
                "tube": {"times_s": times_s, "boxes": [_rounded(box) for box in person.tube]},
            }
            for person in people
        ],
    }


def _rounded(values: Any, decimals: int = _DECIMALS) -> list[float]:
    return [round(float(value), decimals) for value in values]
