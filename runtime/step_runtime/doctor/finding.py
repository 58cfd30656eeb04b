"""One line of what `step-doctor` says."""

from dataclasses import dataclass
from typing import Literal

from step.errors import ArgumentError, StepError

Status = Literal["ok", "absent", "failed"]

_OPTIONS = {name: f"--{name}" for name in ("backend", "device", "loop", "model")}  # of step-run and others


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        section: what it belongs to.
        name: what was looked at.
        status: "absent" is no harm by itself; "failed" means that the model or the video cannot be used.
        text: what was found, or what to do.
    """

    section: str
    name: str
    status: Status
    text: str


def said(error: StepError) -> str:
    """Returns an error's message, which names commands' options instead of the library's arguments."""
    return error.naming(_OPTIONS) if isinstance(error, ArgumentError) else str(error)
