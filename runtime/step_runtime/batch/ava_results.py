"""AVA's rows of an archive's results, as step-run's detections.csv has them."""

from collections.abc import Iterator
from pathlib import Path

from step.errors import StepError
from step.evaluation.ava_rows import Row, detection_rows, write_rows
from step_runtime.batch.output import Output, read_batch_file
from step_runtime.batch.tables import DETECTION_COLUMNS

_CORNERS = ("x1", "y1", "x2", "y2")


def write_ava_results(folder: Path, csv: Path) -> None:
    """Writes the detections of an output folder of `step-batch` as one csv in AVA's result format.

    Args:
        folder: the output; it may be half done.
        csv: the file to write.

    Raises:
        StepError: it is no such folder, its run kept no detections, or a table cannot be read.
    """
    if not read_batch_file(folder).settings.detections:
        raise StepError(f"{folder}: was run with --no-detections, so there is nothing to score; run it again without")
    with csv.open("w", newline="", encoding="utf-8") as file:
        for path in Output(folder).tables("detections"):
            write_rows(file, _rows(path))


def _rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=list(DETECTION_COLUMNS), partitioning=None)
    except (OSError, ValueError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise StepError(
            f"{path}: cannot be read: {said}; remove it and its record, and run step-batch again"
        ) from error
    columns = {name: table[name].to_pylist() for name in DETECTION_COLUMNS}
    boxes = zip(*(columns[name] for name in _CORNERS), strict=True)
    places = zip(columns["video"], columns["second"], boxes, columns["class_id"], columns["score"], strict=True)
    for video, second, box, label, score in places:
        yield from detection_rows(video, second, [box], [label], [score])
