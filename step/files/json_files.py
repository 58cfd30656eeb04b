"""Reading JSON that others may have written or damaged (torch-free)."""

import json
from pathlib import Path
from typing import Any, NoReturn

from step.errors import StepError
from step.files.text_files import read_text

_MOST_BYTES = 64 * 2**20


def read_json(path: Path, *, advice: str) -> Any:
    """The value in a file of ours, read strictly: UTF-8, every key once, no NaN, nothing that cannot be written again.

    Args:
        path: the file.
        advice: what to do where it is damaged.

    Raises:
        StepError: it cannot be read, is no JSON, or is none of this project's: too large or nested too deeply.
    """
    try:
        text = read_text(path, most_bytes=_MOST_BYTES)
    except OSError as error:
        raise StepError(f"{path}: cannot be read: {error.strerror or error}; {advice}") from error
    except ValueError as error:
        raise StepError(f"{path}: is damaged: {error}; {advice}") from error
    try:
        return parse_json(text)
    except ValueError as error:
        raise StepError(f"{path}: is damaged: no JSON of ours: {error}; {advice}") from error


def parse_json(text: str) -> Any:
    """The same of a text.

    Raises:
        ValueError: it is no JSON, or see `read_json`.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        if "\\u" in text:  # an escape is the only way for half a character to be in UTF-8
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("it has half a character (a lone surrogate)") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
