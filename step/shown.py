"""Text from files as people see it: names cannot move a cursor, clear a screen or turn a line around (torch-free)."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_HIDDEN = frozenset(("Cc", "Cs", "Zl", "Zp"))
# Marks that change the direction of what follows: https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_MOST = 200


def shown(text: str) -> str:
    r"""The text with control characters, lone surrogates and marks of direction as escapes, such as `\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if c in _DIRECTIONS or unicodedata.category(c) in _HIDDEN else c for c in text)


def quoted(value: object) -> str:
    """A value for a message, as Python writes it, of at most 200 characters."""
    text = shown(repr(value))
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun: "1 box", "2 boxes"; the plural ends with an s unless another is given."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def spreadsheet_cell(text: str) -> str:
    """Text for a table that people open in a spreadsheet: what it would take for a formula begins with an apostrophe.

    Source: https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{text}" if text.startswith(_FORMULAS) else text


def make_console(**options: Any) -> Console:
    """A console on which names are harmless; the options are rich's."""
    return _ShownConsole(**options)


class _ShownConsole(Console):
    """Escapes what is in text; the library's own sequences, for colours and bars, are made later or marked as such."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text="\n".join(map(shown, segment.text.split("\n"))))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
