"""Checks of arguments that people pass to functions: one line says what was wrong, the value, and what to give."""

import math
import numbers
from collections.abc import Collection
from fractions import Fraction

from step.errors import ArgumentError
from step.nearest import did_you_mean
from step.shown import quoted

_NTSC = tuple(Fraction(frames * 1000, 1001) for frames in (24, 30, 48, 60, 120))
_NTSC_DIGITS = Fraction(1, 200)  # 23.98 and 29.97 are what people write
_RATE_DENOMINATOR = 1001
_TIME_DENOMINATOR = 100_000  # of every usual time base: 1/90000, 1/12800, milliseconds


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuses what is none of the choices; the line lists them, and offers the nearest.

    Raises:
        ArgumentError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ArgumentError(f"`{name}` is {quoted(value)}; give {listed(choices)}{did_you_mean(str(value), choices)}")


def check_whole(name: str, value: object, *, least: int, most: float = math.inf) -> None:
    """Refuses what is no whole number of at least so much, and at most so much.

    Raises:
        ArgumentError: another number, or none.
    """
    if not (isinstance(value, numbers.Integral) and least <= as_number(value) <= most):
        bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ArgumentError(f"`{name}` is {quoted(value)}; it must be a whole number {bounds}")


def check_flag(name: str, value: object) -> None:
    """Refuses what is neither True nor False.

    Raises:
        ArgumentError: something else, such as "no", which Python takes for true.
    """
    if not isinstance(value, bool):
        raise ArgumentError(f"`{name}` is {quoted(value)}; give True or False")


def check_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuses what is no finite number within bounds: `least` and `most` are in, `above` and `below` are not.

    Raises:
        ArgumentError: another number, NaN, infinity, or no number.
    """
    number = as_number(value)
    holds = (
        math.isfinite(number)
        and (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    )
    if not holds:
        raise ArgumentError(f"`{name}` is {_shown(value)}; it must be a number {_bounds(least, above, most, below)}")


def _bounds(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    """Words what `check_number` takes, as "above 0" or "in [0, 1)"."""
    if most is None and below is None:
        return f"of at least {least:g}" if least is not None else f"above {above:g}"
    start = f"[{least:g}" if least is not None else f"({above:g}"
    return f"in {start}, " + (f"{most:g}]" if most is not None else f"{below:g})")


def check_score_threshold(value: object) -> None:
    """Refuses thresholds of scores that would silently give everything or nothing.

    Raises:
        ArgumentError: outside of [0, 1), NaN, or no number.
    """
    check_number("score_threshold", value, least=0, below=1)


def exact_seconds(name: str, value: object) -> Fraction:
    """Reads a time in seconds, exact: a float is the simplest fraction beside it, so that `1 / 3` is a third.

    Raises:
        ArgumentError: no finite number.
    """
    if not math.isfinite(as_number(value)):
        raise ArgumentError(f"`{name}` is {_shown(value)}; it must be a number of seconds")
    exact = _fraction(value)
    return exact if isinstance(value, numbers.Rational) else simplest(exact)


def exact_interval(name: str, value: object) -> Fraction:
    """Reads a length of time in seconds; see `exact_seconds`.

    Raises:
        ArgumentError: no number above 0.
    """
    if not 0 < as_number(value) < math.inf:
        raise ArgumentError(f"`{name}` is {_shown(value)}; it must be above 0 seconds")
    return exact_seconds(name, value) or _fraction(value)


def exact_rate(name: str, value: object) -> Fraction:
    """Reads a number of frames a second, exact: 29.97 is 30000/1001.

    Raises:
        ArgumentError: no number above 0.
    """
    if not 0 < as_number(value) < math.inf:
        raise ArgumentError(f"`{name}` is {_shown(value)}; it must be above 0")
    rate = _fraction(value)
    if rate.denominator != 1:
        rate = next((ntsc for ntsc in _NTSC if abs(rate - ntsc) < _NTSC_DIGITS), rate)
    return rate.limit_denominator(_RATE_DENOMINATOR) or rate


def simplest(seconds: Fraction) -> Fraction:
    """The simplest time beside one that was a float: 0.04 is 1/25 again.

    It is exact for every fraction with a denominator up to 100,000 for a day, since floats are closer to it than to
    any other of those.
    """
    return seconds.limit_denominator(_TIME_DENOMINATOR)


def listed(choices: Collection[str]) -> str:
    """The choices as a sentence has them: "auto, cpu or cuda"."""
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def as_number(value: object) -> float:
    """The value as a float; NaN, with which nothing compares, for what is no number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _fraction(value: object) -> Fraction:
    """A number, NumPy's too, as a fraction of Python's own integers."""
    if isinstance(value, numbers.Rational):
        return Fraction(int(value.numerator), int(value.denominator))
    return Fraction(as_number(value))


def _shown(value: object) -> str:
    """A number as people write it, anything else as Python does."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return f"{as_number(value):g}" if is_number else quoted(value)
