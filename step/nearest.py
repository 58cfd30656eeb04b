"""What somebody may have meant who mistyped a name (torch-free)."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns what to put behind a message about an unknown name: "; did you mean 'fused'?", or nothing.

    Args:
        name: what was given.
        known: what could have been.
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
