"""Damage for fuzz tests: bytes that are flipped, cut, doubled or put in, and JSON values that are replaced by odd ones.

Examples are derived from the tests' names, so that every run has the same; what was found once stands in the tests as
an example of its own.
"""

import contextlib
import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning

from step import StepError

ODD_TEXT = (
    *("", "\0", "\x1b[2J", "\u202e", "=1+1", "a" * 300, "..", "/etc/passwd", "../x", "nan", "1e999", "9" * 5000),
    *("ß", "\ud800", "\n", "{", "]" * 50, "-1", "0x10", "1_000", "true", "~", "!!python/object:os.system", "&a [*a]"),
)
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, 10**400, 1.5, 1e308, [], {}, [[]], {"a": {}}, [0] * 100),
    *(text for text in ODD_TEXT if text != "\ud800"),
)


@dataclass(frozen=True)
class Damaged:
    """A content, and how it came to be, which a failed test shows."""

    content: bytes = field(repr=False)
    changes: object


def damaged_bytes(content: bytes, *, most: int = 4) -> st.SearchStrategy[Damaged]:
    """The content with a few places changed; some more often at its beginning, where headers are."""
    places = st.one_of(st.integers(0, len(content)), st.integers(0, min(len(content), 512)))
    values = st.one_of(
        st.binary(min_size=1, max_size=8), st.sampled_from([text.encode(errors="surrogatepass") for text in ODD_TEXT])
    )
    change = st.tuples(st.sampled_from(["flip", "put in", "drop", "double", "cut"]), places, values, st.integers(1, 64))

    def apply(changes: list[tuple[str, int, bytes, int]]) -> Damaged:
        found = content
        for kind, place, value, count in changes:
            head, tail = found[:place], found[place:]
            if kind == "flip":
                found = head + bytes(b ^ v for b, v in zip(tail, value, strict=False)) + tail[len(value) :]
            elif kind == "put in":
                found = head + value + tail
            elif kind == "drop":
                found = head + tail[count:]
            elif kind == "double":
                found = head + tail[:count] * 2 + tail[count:]
            else:
                found = head
        return Damaged(found, changes)

    return st.lists(change, min_size=1, max_size=most).map(apply)


def damaged_json(text: str) -> st.SearchStrategy[Damaged]:
    """The value with one or two parts replaced, removed or doubled, or its text damaged."""
    value = json.loads(text)
    paths = _paths(value)
    change = st.tuples(
        st.sampled_from(paths), st.sampled_from(["replace", "remove", "add"]), st.sampled_from(_ODD_VALUES)
    )

    def apply(changes: list[tuple[tuple[Any, ...], str, Any]]) -> Damaged:
        found = copy.deepcopy(value)
        for path, kind, odd in changes:
            found = _changed(found, path, kind, odd)
        return Damaged(json.dumps(found).encode(), changes)

    return st.one_of(st.lists(change, min_size=1, max_size=2).map(apply), damaged_bytes(text.encode()))


def _paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [above, *(path for key, part in inner for path in _paths(part, (*above, key)))]


def _changed(value: Any, path: tuple[Any, ...], kind: str, odd: Any) -> Any:
    if not path:
        return odd
    holder = value
    try:
        for key in path[:-1]:
            holder = holder[key]
        if kind == "replace":
            holder[path[-1]] = odd
        elif kind == "remove":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder[str(odd)[:40]] = odd
        else:
            holder.insert(path[-1], odd)
    except (LookupError, TypeError, AttributeError):  # an earlier change took the place away
        pass
    return value


def survives(
    read: Callable[[Path], Any],
    path: Path,
    contents: st.SearchStrategy[Damaged],
    *,
    examples: int,
    known: tuple[bytes, ...] = (),
) -> None:
    """Every content is read or refused with one line; anything else that is raised fails the test.

    Args:
        read: takes the file.
        path: where contents are written.
        contents: to be tried.
        examples: how many.
        known: what was found to fail once.
    """

    def check(damaged: Damaged) -> None:
        path.write_bytes(damaged.content)
        with contextlib.suppress(StepError):
            read(path)

    for content in known:
        check(Damaged(content, "known"))
    options = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)  # of a failure whose changes are long to tell
        options(given(contents)(check))()
