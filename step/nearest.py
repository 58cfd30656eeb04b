"""Offering the name that was probably meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Words the offer: "; did you mean toy?", or nothing where no name is near.

    Args:
        word: what was given.
        names: what it could be.
    """
    near = difflib.get_close_matches(word, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""
