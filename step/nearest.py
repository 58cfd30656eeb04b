"""What somebody may have meant who mistyped a name (torch-free)."""

import difflib
from collections.abc import Iterable

_NEAR = 0.5  # of difflib's ratio: "trt" is near "tensorrt" (0.55), "gpu" is near nothing


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns what to put behind a message about an unknown name: "; did you mean 'fused'?", or nothing.

    Args:
        name: what was given.
        known: what could have been.
    """
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=_NEAR)
    return f"; did you mean {near[0]!r}?" if near else ""
