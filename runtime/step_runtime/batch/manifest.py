"""The manifest: a table with one row a video, folded from the records; what is settled in it is not looked at again."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from step.errors import StepError
from step.files.atomic import atomic_path
from step.files.locks import folder_lock
from step_runtime.batch.output import Output
from step_runtime.batch.records import SETTLED, VideoRecord, file_key

_PATIENCE_S = 600.0  # shards that end together fold one after the other
_TEXTS = ("name", "location", "status", "reason", "run", "node", "worker")
_NUMBERS = ("attempts", "crashes", "clips", "dropped_clips", "people", "rows")
_MEASURES = ("seconds", "video_s")
COLUMNS = (
    "name",
    "location",
    "status",
    "reason",
    "seconds",
    "video_s",
    "clips",
    "dropped_clips",
    "people",
    "rows",
    "attempts",
    "crashes",
    "worker",
    "run",
    "node",
)


@dataclass
class Known:
    """What is known of an output's videos.

    Attributes:
        names: location -> name, of all.
        settled: name -> status, of those that are not to be done again.
        begun: names of those that were under way when somebody was killed.
    """

    names: dict[str, str] = field(default_factory=dict)
    settled: dict[str, str] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)


def fold(output: Output) -> Known:
    """Brings the manifest up to date with the records, and says what is known.

    Raises:
        StepError: it cannot be read or written.
    """
    import pyarrow as pa

    output.records.folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(output.records.folder, most_s=_PATIENCE_S):
        table = _read(output.manifest)
        old = _settled_rows(table)
        known = _known(old)
        settled_keys = {file_key(name) for name in known.settled}
        fresh = [
            record
            for key in output.records.list_keys()
            if key not in settled_keys and (record := output.records.read(key)) is not None
        ]
        if fresh or table is None or len(old) < len(table):
            joined = pa.concat_tables([old, _table(fresh)]).sort_by("name")
            _write(output.manifest, joined)
    for record in fresh:
        known.names[record.location] = record.name
        if record.is_settled:
            known.settled[record.name] = record.status
        else:
            known.begun.add(record.name)
    return known


def forget_failures(output: Output) -> int:
    """Has what failed or was set aside be done again; returns how many these are.

    Raises:
        StepError: the manifest cannot be written.
    """
    import pyarrow as pa

    known = fold(output)
    again = [name for name, status in known.settled.items() if status in ("failed", "set aside")]
    if again:
        for name in again:
            output.records.path(file_key(name)).unlink(missing_ok=True)
        with folder_lock(output.records.folder, most_s=_PATIENCE_S):
            table = _read(output.manifest)
            if table is not None:
                kept = [name not in set(again) for name in table["name"].to_pylist()]
                _write(output.manifest, table.filter(pa.array(kept, pa.bool_())))
    return len(again)


def read_rows(output: Output) -> list[dict[str, Any]]:
    """The manifest's rows; see `VideoRecord`.

    Raises:
        StepError: it cannot be read.
    """
    table = _read(output.manifest)
    return [] if table is None else table.to_pylist()


def _schema() -> Any:
    import pyarrow as pa

    types = dict.fromkeys(_TEXTS, pa.string()) | dict.fromkeys(_NUMBERS, pa.int64())
    types |= dict.fromkeys(_MEASURES, pa.float64())
    return pa.schema([(name, types[name]) for name in COLUMNS])


def _table(records: list[VideoRecord]) -> Any:
    import pyarrow as pa

    schema = _schema()
    arrays = [
        pa.array([getattr(record, column) for record in records], schema.field(column).type) for column in COLUMNS
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _read(path: Path) -> Any:
    """The manifest; None where there is none."""
    import pyarrow as pa
    from pyarrow import parquet

    if not path.exists():
        return None
    try:
        return parquet.read_table(path, schema=_schema(), partitioning=None)
    except (OSError, ValueError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise StepError(f"{path}: cannot be read: {said}; remove it, and it is made anew from the records") from error


def _settled_rows(table: Any) -> Any:
    """Those rows that stay as they are: a row of a video under way is read anew."""
    import pyarrow as pa

    if table is None:
        return _table([])
    return table.filter(pa.array([status in SETTLED for status in table["status"].to_pylist()], pa.bool_()))


def _known(table: Any) -> Known:
    names, locations = table["name"].to_pylist(), table["location"].to_pylist()
    return Known(
        names=dict(zip(locations, names, strict=True)),
        settled=dict(zip(names, table["status"].to_pylist(), strict=True)),
    )


def _write(path: Path, table: Any) -> None:
    from pyarrow import parquet

    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)
