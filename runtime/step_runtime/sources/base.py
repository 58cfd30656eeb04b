"""What every source of frames offers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SourceFrame:
    """A decoded frame; `rgb` converts it, which is paid by whoever needs the pixels.

    Attributes:
        time_s: exact presentation time, from the first frame of the source.
        index: position in the source.
        width_px, height_px: picture size, rotation applied.
        rgb: returns uint8 [height_px, width_px, 3].
        due_at_s: of a live source: monotonic clock when the frame would have come, had nothing on its way been slow.
        starts_segment: whether time was lost before this frame, which no frame before it may fill.
    """

    time_s: Fraction
    index: int
    width_px: int
    height_px: int
    rgb: Callable[[], NDArray[np.uint8]]
    due_at_s: float | None = None
    starts_segment: bool = False


class Paced(Protocol):
    """What is known of the times of frames.

    Attributes:
        interval_s: nominal time between frames.
        slack_s: how far a timestamp may be off because the container rounds it.
        is_live: frames come in their own time and cannot be read again.
    """

    interval_s: Fraction
    slack_s: Fraction
    is_live: bool


class Source(Paced, Protocol):
    """A stream of frames in order of time: `Detector.run` takes anyone's that has these attributes and `frames`.

    Attributes:
        name: what results call it.
        interval_s, slack_s, is_live: see `Paced`.
        duration_s: length as the container states it; None if it does not or the source is live.
        problem: set when the frames stopped before the source's end: where and why.
        notes: what was chosen, skipped or bounded in reading it, a line each.
    """

    name: str
    duration_s: Fraction | None
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
