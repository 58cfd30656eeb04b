"""Reads AVA's csv files into columns: ground truth, results, proposals, and lists of excluded key frames (torch-free).

A row is `video,second,x1,y1,x2,y2,class id` and then a score (results), a person id (ground truth) or nothing; corners
are shares of the frame's width and height. `video,second` alone names a key frame without boxes.

Source: https://research.google.com/ava/download.html ("CSV format"); SPEC.md, "Detections of a step".
"""

import codecs
import csv
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from step.errors import StepError
from step.evaluation.box_table import BoxTable, Last, are_seconds, check_boxes
from step.shown import quoted

_BLOCK_BYTES = 2**20
_NAMES = ("video", "second", "x1", "y1", "x2", "y2", "class", "last")
_LONGEST_ID = 300  # digits


def read_boxes(path: Path, *, last: Last) -> BoxTable:
    """Reads and checks a file of boxes.

    Args:
        path: the csv.
        last: what stands in the eighth column. Results need their score; a person id, a number of any length, may be
            missing.

    Raises:
        StepError: no such file, or the first line that is wrong and what is wrong with it.
    """
    table, short = _read_columns(path, last)
    lines = _line_numbers(path, table.num_rows, short)
    columns = {name: table[name].to_numpy() for name in _NAMES[1:7]}
    people: tuple[str, ...] = ()
    if last == "person":
        score, people = _people(table["last"], path, lines)
    else:
        score = table["last"].to_numpy()
    encoded = table["video"].combine_chunks().dictionary_encode()
    result = BoxTable(
        path=path,
        videos=tuple(encoded.dictionary.to_pylist()),
        video=encoded.indices.to_numpy().astype(np.int32, copy=False),
        second=columns["second"],
        boxes_xyxy=np.stack([columns[name] for name in _NAMES[2:6]], axis=1),
        label=_labels(columns["class"], path, lines),
        last=score,
        lines=lines,
        empty=_empty_frames(path, short),
        people=people,
    )
    check_boxes(result, last=last)
    return result


def read_frames(path: Path) -> tuple[tuple[str, float], ...]:
    """Reads key frames from rows of video and second, as AVA's exclusion lists are; further columns do not count.

    Raises:
        StepError: no such file, or the first line that is wrong.
    """
    _check_utf8(path)
    frames = []
    for number, columns in _rows(path):
        if len(columns) < 2:
            raise StepError(f"{path}, line {number}: is {quoted(columns[0])}; a key frame is video,second")
        frames.append(_empty_frame(path, number, columns[0].strip(), columns[1].strip()))
    return tuple(frames)


def _read_columns(path: Path, last: Last) -> tuple[Any, list[tuple[int, str]]]:
    """Reads an Arrow table of eight columns, and the rows of two columns: (number among all rows, text)."""
    try:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv
    except ModuleNotFoundError as error:
        raise StepError("reading AVA's csv needs pyarrow; install it with: pip install pyarrow") from error
    _check_utf8(path)
    width = _width(path)
    short: list[tuple[int, str]] = []
    wrong: list[tuple[int, int]] = []

    def other_row(row: Any) -> str:
        if row.actual_columns == 2:
            short.append((row.number, row.text))
        else:
            wrong.append((row.number, row.actual_columns))
        return "skip"

    texts = ("video", "last") if last == "person" else ("video",)
    types = {name: pa.string() if name in texts else pa.float64() for name in _NAMES}
    try:
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(column_names=list(_NAMES[:width]), use_threads=False),
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=other_row, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            table = pa.table({name: pa.array([], type=types[name]) for name in _NAMES[:width]})
        else:
            raise StepError(_conversion_message(path, str(error))) from error
    except OSError as error:
        raise StepError(f"{path}: cannot be read: {error.strerror or error}") from error
    if wrong:
        number, found = _line_of(_filled_lines(path), wrong[0][0]), wrong[0][1]
        raise StepError(
            f"{path}, line {number}: has {found} columns; AVA's rows have {width} here (video, second, box, class"
            f"{', score or person' if width == 8 else ''}) or 2 (video, second)"
        )
    if width == 7:
        table = table.append_column("last", pa.nulls(table.num_rows, types["last"]))
    return table, short


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not blank, with the line on which each begins: quotes may hold commas and line ends.

    Raises:
        StepError: no such file, not UTF-8, or the line that is no row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            while True:
                number = reader.line_num + 1
                columns = next(reader, None)
                if columns is None:
                    return
                if len(columns) > 1 or (columns and columns[0].strip()):
                    yield number, columns
    except csv.Error as error:
        raise StepError(f"{path}, line {number}: is no row: {error}") from error
    except FileNotFoundError as error:
        raise StepError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise StepError(f"{path}: is not UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise StepError(f"{path}: cannot be read: {error.strerror or error}") from error


def _width(path: Path) -> int:
    """Counts the columns of the first row that has a box: 7 or 8."""
    for number, columns in _rows(path):
        if len(columns) in (7, 8):
            return len(columns)
        if len(columns) != 2:
            raise StepError(
                f"{path}, line {number}: has {len(columns)} columns; AVA's rows have 8 (video, second, x1, y1, x2, "
                "y2, class, score or person), 7 or 2 (video, second)"
            )
    return 8


def _check_utf8(path: Path) -> None:
    """Refuses other text before Arrow sees it, which prints a traceback of its own if `other_row` is to see the row."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 1
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                decoder.decode(block)
                lines += block.count(b"\n")
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        lines += error.object[: error.start].count(b"\n")
        raise StepError(f"{path}, line {lines}: is not UTF-8 text; save the file as UTF-8") from error
    except FileNotFoundError as error:
        raise StepError(f"{path}: no such file") from error
    except OSError as error:
        raise StepError(f"{path}: cannot be read: {error.strerror or error}") from error


def _conversion_message(path: Path, said: str) -> str:
    """Says what Arrow says of a value that is no number, with the line in the file and the column's name."""
    found = re.search(r"column #(\d+)(?:: Row #(\d+))?: .*invalid value '(.*)'", said, re.DOTALL)
    if found is None:
        return f"{path}: {' '.join(said.split())}"
    name, value = _NAMES[int(found[1])], found[3]
    what = {"class": "class id", "last": "score"}.get(name, name)
    for number, columns in _rows(path):
        if len(columns) > int(found[1]) and columns[int(found[1])].strip() == value.strip():
            return f"{path}, line {number}: the {what} is {quoted(value)}; it must be a number"
    return f"{path}: a {what} is {quoted(value)}; it must be a number"


def _line_numbers(path: Path, rows: int, short: list[tuple[int, str]]) -> NDArray[np.int64]:
    """Finds the line of each row; blank lines and rows of two columns stand between them."""
    blank = np.zeros(0, np.int64)
    content = path.read_bytes()
    if b'"' in content:
        lines = _filled_lines(path)
        skipped = {number for number, _ in short}
        numbered = (_line_of(lines, number) for number in range(1, rows + len(short) + 1) if number not in skipped)
        return np.fromiter(numbered, np.int64, rows)
    if re.search(rb"\A[\r\n]|\n\n|\r\r|\n\r", content):
        blank = np.flatnonzero([not line.strip() for line in content.splitlines()]) + 1
    numbers = np.arange(1, rows + len(short) + len(blank) + 1, dtype=np.int64)
    filled = np.setdiff1d(numbers, blank, assume_unique=True)[: rows + len(short)]
    return np.delete(filled, [number - 1 for number, _ in short])


def _line_of(lines: list[int], number: int) -> int:
    """Finds a row's line by its number from 1; in damaged text, Arrow and the csv module may see different rows."""
    return lines[min(number, len(lines)) - 1] if lines else 1


def _people(column: Any, path: Path, lines: NDArray[np.int64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Finds each row's person as an index into the ids, NaN where there is none. 12, 012 and 12.0 are one id."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    numbers: list[Decimal | None] = []
    for code, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            number = Decimal(text.strip() or "nan")
        except InvalidOperation:
            number = Decimal("inf")
        if number.is_infinite() or abs(number.adjusted()) > _LONGEST_ID:
            line = lines[int(np.argmax(codes == code))]
            raise StepError(f"{path}, line {line}: the person id is {quoted(text[:60])}; it must be a number")
        numbers.append(None if number.is_nan() else number)
    known = sorted({number for number in numbers if number is not None})
    index = {number: float(place) for place, number in enumerate(known)}
    # The last one is for rows whose code is -1.
    places = np.array([*(np.nan if number is None else index[number] for number in numbers), np.nan])
    return places[codes], tuple(str(int(n)) if n == int(n) else f"{n:f}".rstrip("0") for n in known)


def _labels(values: NDArray[np.float64], path: Path, lines: NDArray[np.int64]) -> NDArray[np.int32]:
    whole = np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**31)
    if not whole.all():
        row = int(np.argmin(whole))
        raise StepError(f"{path}, line {lines[row]}: the class is {values[row]}; it must be a whole number")
    return values.astype(np.int32)


def _empty_frames(path: Path, short: list[tuple[int, str]]) -> tuple[tuple[str, float], ...]:
    if not short:
        return ()
    lines = _filled_lines(path)
    frames = []
    for number, text in short:
        line = _line_of(lines, number)
        columns = _split(path, line, text)
        if len(columns) != 2:
            raise StepError(f"{path}, line {line}: is {quoted(text[:60])}; a key frame is video,second")
        frames.append(_empty_frame(path, line, columns[0], columns[1]))
    return tuple(frames)


def _filled_lines(path: Path) -> list[int]:
    """Lists the lines of the rows: Arrow does not count blank lines, nor does it know lines from rows."""
    return [number for number, _ in _rows(path)]


def _split(path: Path, number: int, line: str) -> list[str]:
    """Splits a row into its columns; quotes may hold commas."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error as error:
        raise StepError(f"{path}, line {number}: is no row: {error}") from error


def _empty_frame(path: Path, number: int, video: str, second: str) -> tuple[str, float]:
    try:
        value = float(second)
    except ValueError:
        value = float("nan")
    if not are_seconds(np.array(value)):
        raise StepError(f"{path}, line {number}: the second is {quoted(second)}; it must be a number, at least 0")
    return video, value
