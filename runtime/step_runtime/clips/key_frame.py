"""What the runtime reports about one key frame."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step.detections import Detections
from step.errors import StepError
from step_runtime.people.merging import join_same, merge_classes
from step_runtime.people.person import DECIMALS_S, Person
from step_runtime.people.table import COLUMNS, people_rows

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_SCORE_THRESHOLD = 0.4
"""People's scores are above it unless a call says otherwise; the release's demo has it."""


@dataclass(frozen=True)
class Clip:
    """The frames around one key frame, ready for the model.

    Attributes:
        frames: uint8 [F, H, W, 3] RGB.
        time_s: exact time of the key frame, from the first frame of the source.
        scheduled_s: the moment that asked for this key frame; at most one frame interval after `time_s`.
        frame: index of the key frame in the source.
        width_px, height_px: size of the source's pictures, rotation applied.
        ready_at_s: monotonic clock when the clip was complete.
    """

    frames: NDArray[np.uint8]
    time_s: Fraction
    scheduled_s: Fraction
    frame: int
    width_px: int
    height_px: int
    ready_at_s: float


@dataclass(frozen=True)
class KeyMoment:
    """A key frame whose clip comes as features, not as frames.

    Attributes:
        number: of the source's key frames, from 0.
        group: the first of the feature frames of its clip, counted from the one with which the first clip begins.
        time_s, scheduled_s, frame, width_px, height_px: see `Clip`.
        ready_at_s: monotonic clock when the last frame of its clip was there.
    """

    number: int
    group: int
    time_s: Fraction
    scheduled_s: Fraction
    frame: int
    width_px: int
    height_px: int
    ready_at_s: float


@dataclass(frozen=True)
class KeyFrame:
    """Detections at one key frame of a source, and the people that they show.

    The arrays are the caller's own, contiguous, and change with no later call.

    Attributes:
        video: name of the source.
        time_s, scheduled_s, frame, width_px, height_px: see `Clip`.
        detections: of one clip (B = 1), every one that the model reports.
        config: of the model that made them.
        lag_s: from the clip being complete to its detections being there.
    """

    video: str
    time_s: Fraction
    scheduled_s: Fraction
    frame: int
    width_px: int
    height_px: int
    detections: Detections[NDArray[np.generic]] = field(repr=False)  # hundreds of rows
    config: StepConfig = field(repr=False)
    lag_s: float

    @classmethod
    def of(
        cls,
        moment: "Clip | KeyMoment",
        detections: Detections[NDArray[np.generic]],
        *,
        video: str,
        config: StepConfig,
    ) -> Self:
        """Makes one of detections that are there now; see the class."""
        return cls(
            video=video,
            time_s=moment.time_s,
            scheduled_s=moment.scheduled_s,
            frame=moment.frame,
            width_px=moment.width_px,
            height_px=moment.height_px,
            detections=detections,
            config=config,
            lag_s=time.monotonic() - moment.ready_at_s,
        )

    def people(self, score_threshold: float = DEFAULT_SCORE_THRESHOLD) -> list[Person]:
        """People, best score first: detections of all classes merged, nobody shown twice; see `join_same`.

        Args:
            score_threshold: detections have to be above it; in [0, 1).

        Raises:
            StepError: another threshold.
        """
        return join_same(merge_classes(self, self.config, score_threshold=score_threshold))

    def to_dict(self, score_threshold: float = DEFAULT_SCORE_THRESHOLD) -> dict[str, Any]:
        """Plain values for JSON: a line of detections.jsonl, whose "boxes" are the people; see `people`."""
        return key_frame_record(self, self.people(score_threshold))

    def to_json(self, score_threshold: float = DEFAULT_SCORE_THRESHOLD) -> str:
        """A line of detections.jsonl, without its end; see `people`."""
        return key_frame_json(self, self.people(score_threshold))

    def to_pandas(self, score_threshold: float = DEFAULT_SCORE_THRESHOLD) -> "pd.DataFrame":
        """A table with one row a person and action, and the columns of people.csv; see `people`.

        Raises:
            StepError: pandas is not installed.
        """
        people = self.people(score_threshold)
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise StepError("`to_pandas` needs pandas; install it with: pip install pandas") from error
        rows = people_rows(people, video=self.video, time_s=self.time_s, frame=self.frame)
        return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)


def key_frame_record(key_frame: KeyFrame, people: Sequence[Person]) -> dict[str, Any]:
    """A key frame and its people as plain values, rounded; see `KeyFrame.to_dict`."""
    return {
        "video": key_frame.video,
        "time_s": round(float(key_frame.time_s), DECIMALS_S),
        "frame": key_frame.frame,
        "width_px": key_frame.width_px,
        "height_px": key_frame.height_px,
        "boxes": [person.to_dict() for person in people],
    }


def key_frame_json(key_frame: KeyFrame, people: Sequence[Person]) -> str:
    """The same as a line of JSON, without its end."""
    return json.dumps(key_frame_record(key_frame, people))
