"""What step-batch leaves, as tests compare it."""

from pathlib import Path
from typing import Any

from pyarrow import parquet


def people_rows(path: Path) -> list[tuple[Any, ...]]:
    """The rows of one table."""
    return [tuple(row.values()) for row in parquet.read_table(path, partitioning=None).to_pylist()]


def contents(out: Path) -> dict[str, bytes]:
    """Every file of the results; each is what one video gives, whoever made it."""
    files = [path for kind in ("people", "detections") for path in (out / kind).glob("*/*")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
