"""What every source of frames offers."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Protocol, runtime_checkable

from step_runtime.clips.clip_buffer import SourceFrame


class Source(Protocol):
    """A stream of frames in order of time.

    Attributes:
        name: what results call it.
        interval_s: nominal time between frames.
        slack_s: how far a timestamp may be off because the container rounds it.
        duration_s: length as the container states it; None if it does not or the source is live.
        is_live: frames come in their own time and cannot be read again.
        problem: set when the frames stopped before the source's end: where and why.
        notes: what was chosen, skipped or bounded in reading it, a line each.
    """

    name: str
    interval_s: Fraction
    slack_s: Fraction
    duration_s: Fraction | None
    is_live: bool
    problem: str | None
    notes: list[str]

    def frames(self) -> Iterator[SourceFrame]:
        """Decodes from the beginning (a source that is not live can be read more than once).

        Raises:
            StepError: nothing at all can be decoded.
        """


@runtime_checkable
class Stoppable(Protocol):
    """What a source offers besides `Source` where a frame may not come for long."""

    def stop(self) -> None:
        """Ends `frames` at once, whatever it waits for; called from another thread."""
