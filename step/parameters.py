"""What the options and arguments of commands may be: numbers within bounds, words, lists of either (torch-free).

What cannot be read, or is none of the words, is a usage error (exit code 2); a number out of its bounds is a StepError
(exit code 1), worded as the library words it.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from step.arguments import check_number, check_whole, exact_interval
from step.checkpoints.toy_model import find_bundle
from step.errors import ArgumentError, StepError
from step.nearest import did_you_mean

if TYPE_CHECKING:
    _Kind = click.ParamType[Any]
else:
    _Kind = click.ParamType  # which is not generic before click 8.4


class FilePath(click.Path):
    """A file or folder. A name that is empty, as an unset variable of a shell is, does not mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        if not str(value):
            self.fail("it is empty; give a path", param, ctx)
        return super().convert(value, param, ctx)


class BundlePath(FilePath):
    """A bundle folder; `toy` is the one in the package."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        return find_bundle(str(super().convert(value, param, ctx)))


class Choice(click.Choice[str]):
    """One of some words; of another the nearest is named."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """See `click.Choice.get_invalid_choice_message`."""
        said = super().get_invalid_choice_message(value, ctx).removesuffix(".")
        return said + did_you_mean(str(value), self.choices)


class Whole(_Kind):
    """A whole number within bounds, both of which may be given."""

    name = "integer"

    def __init__(self, least: int, most: float = math.inf) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        number = click.INT.convert(value, param, ctx)
        _check(param, lambda name: check_whole(name, number, least=self.least, most=self.most))
        return number


class Number(_Kind):
    """A finite number within bounds: `least` and `most` are in, `above` and `below` are not."""

    name = "float"

    def __init__(
        self,
        *,
        least: float | None = None,
        above: float | None = None,
        most: float | None = None,
        below: float | None = None,
    ) -> None:
        self.least, self.above, self.most, self.below = least, above, most, below

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        number = click.FLOAT.convert(value, param, ctx)

        def check(name: str) -> None:
            check_number(name, number, least=self.least, above=self.above, most=self.most, below=self.below)

        _check(param, check)
        return number


class Seconds(_Kind):
    """A length of time above 0, exact: "0.1" is a tenth, and "1/3" a third."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        try:
            length: Fraction | float = Fraction(value)
        except ZeroDivisionError:
            length = math.inf
        except ValueError:
            length = click.FLOAT.convert(value, param, ctx)  # NaN and infinity, which no fraction is
        _check(param, lambda name: exact_interval(name, length))
        return length


class OrWord(_Kind):
    """What another type reads, or a word, which is None."""

    def __init__(self, kind: _Kind, word: str) -> None:
        self.kind, self.word, self.name = kind, word, f"{kind.name}|{word}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        if value == self.word:
            return None
        try:
            return self.kind.convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message.removesuffix('.')}; give one, or {self.word}", param, ctx)


class ListOf(_Kind):
    """Several of another type, with commas between them; a tuple."""

    def __init__(self, kind: _Kind) -> None:
        self.kind, self.name = kind, f"{kind.name},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        if isinstance(value, tuple):
            return value
        return tuple(self.kind.convert(part.strip(), param, ctx) for part in str(value).split(","))


def _check(param: click.Parameter | None, check: Callable[[str], object]) -> None:
    """Calls a check of the library, whose complaint is then about the option.

    Raises:
        StepError: the complaint.
    """
    name = "value" if param is None else str(param.name)
    shown = name if param is None else max(param.opts, key=len) if isinstance(param, click.Option) else name.upper()
    try:
        check(name)
    except ArgumentError as error:
        raise StepError(error.naming({name: shown})) from error
