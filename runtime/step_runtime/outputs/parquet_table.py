"""A Parquet file of rows, where pyarrow is installed."""

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from step_runtime.people.table import Cell

_ROWS_A_GROUP = 10_000  # held in memory until they are written


def parquet_is_possible() -> bool:
    """Whether pyarrow is installed; nothing is imported."""
    return importlib.util.find_spec("pyarrow") is not None


class ParquetTable:
    """Collects rows, and writes them in groups; the file can be read once it is closed.

    Args:
        path: written anew.
        columns: names, and what they hold.

    Source: https://arrow.apache.org/docs/python/generated/pyarrow.parquet.ParquetWriter.html.
    """

    def __init__(self, path: Path, columns: Mapping[str, type[Cell]]) -> None:
        self._path = path
        self._columns = columns
        self._rows: list[tuple[Cell, ...]] = []
        self._writer: Any = None

    def add(self, rows: Iterable[tuple[Cell, ...]]) -> None:
        """Takes rows, in the order of the columns.

        Raises:
            OSError: a group of them cannot be written.
        """
        self._rows += rows
        if len(self._rows) >= _ROWS_A_GROUP:
            self._write()

    def close(self) -> None:
        """Writes what is left, and the file's end; a table without rows has its columns.

        Raises:
            OSError: it cannot be written.
        """
        self._write()
        if self._writer is not None:
            self._writer.close()

    def _write(self) -> None:
        # Here, not at the start: it takes 45 MB, which most runs can do without until their end.
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:  # installed and broken is as good as missing: people.csv has the same rows
            self._rows.clear()
            return
        types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        schema = pa.schema([(name, types[kind]) for name, kind in self._columns.items()])
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._path, schema)
        values = zip(*self._rows, strict=True) if self._rows else ((),) * len(self._columns)
        columns = [pa.array(map(_storable, column), field.type) for column, field in zip(values, schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        self._rows.clear()


def _storable(value: Cell) -> Cell:
    """File names may hold bytes that are no UTF-8; Parquet has none."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
