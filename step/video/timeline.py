"""When each decoded frame is shown: the one rule of time, for reading on and for seeking (torch-free).

A *stamp* is what the container says; a *time* is what everything here works with. The rule:

1. Time zero is the first frame that can be shown. What lies before it, such as sound, frames that an edit list hides or
   that cannot be decoded because the recording was cut, does not count.
2. A stamp *follows* another if it lies after it, by at most one second (1.5 frame intervals where those are longer).
   While stamps follow each other, times differ as they do: variable rates, jitter and drops are kept exactly.
3. A stamp that does not follow, or by a much longer step than usual, waits for those of the next three frames. If one
   of them follows the last good stamp and not the new one, the ones between are outliers: their frames lie evenly in
   between, and nothing after them changes. Equal and missing stamps are outliers.
4. If instead the next stamps grow from the new one, however far apart they are, it is a jump and a new segment begins.
   After a jump forward, times are as stamped: the gap is time. After a jump backward, time goes on one frame interval
   after the frame before.
5. A lone frame at the very beginning or end that is more than ten seconds away (2.5 steps, where frames are farther
   apart) is an outlier. FFmpeg's command line takes the same ten seconds for a break
   (https://ffmpeg.org/ffmpeg.html, `-dts_delta_threshold`).
6. Counters that run over, as MPEG's do after 26.5 hours, are no jump: of the two ways around, a step is the shorter.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

Item = TypeVar("Item")

LONGEST_STEP_S = Fraction(1)
"""No picture is repeated for longer than this."""
_LONGEST_STEP_INTERVALS = Fraction(3, 2)  # of recordings that are meant to have less than one frame a second
_SURPRISING_STEPS = Fraction(5, 2)  # a step so much longer than others, although it follows, waits for the next stamp
_WITNESSES = 3  # frames after a jump that are asked; so many outliers in a row change nothing
LONE_GAP_S = Fraction(10)
"""What lies farther from all others, at the beginning or end, is not believed alone."""


@dataclass(frozen=True)
class Jump:
    """Where stamps go on elsewhere.

    Attributes:
        after_s: time of the last frame before it.
        to_s: time of the first frame after it.
        by_s: difference of the stamps; negative where they jump back.
    """

    after_s: Fraction
    to_s: Fraction
    by_s: Fraction


@dataclass(frozen=True)
class Placed(Generic[Item]):
    """An item with its time.

    Attributes:
        item: as it was given.
        time_s: from time zero.
        jump: not None where a new segment begins with this item.
    """

    item: Item
    time_s: Fraction
    jump: Jump | None = None


class Timeline(Generic[Item]):
    """Takes frames in order of presentation with their stamps, and gives them back with times that grow strictly.

    A frame comes back at once, unless its stamp is surprising; then it waits for at most four more.

    Args:
        interval_s: nominal time between frames.
        zero_s: the stamp of time zero, where it is known from reading before.
        wrap_s: after how many seconds the container's counter begins anew; None if it does not.

    Attributes:
        zero_s: the stamp of time zero; None as long as it is not known.
        outliers: how many frames had no stamp that fitted.
    """

    def __init__(self, interval_s: Fraction, *, zero_s: Fraction | None = None, wrap_s: Fraction | None = None) -> None:
        self.zero_s = zero_s
        self.outliers = 0
        self._interval_s = interval_s
        self._longest_step_s = max(LONGEST_STEP_S, _LONGEST_STEP_INTERVALS * interval_s)
        self._wrap_s = wrap_s
        self._last_stamp_s: Fraction | None = None
        self._last_time_s = Fraction(0)
        self._step_s = Fraction(0)  # to the last frame, from the one before it; a gap is none
        self._last_gap_s = Fraction(0)
        self._waiting: list[tuple[Item, Fraction | None]] = []

    def add(self, item: Item, stamp_s: Fraction | None) -> list[Placed[Item]]:
        """Takes the next frame; gives those whose time is known now.

        Args:
            item: the frame.
            stamp_s: None where there is none.
        """
        self._waiting.append((item, self._unwrapped(stamp_s)))
        return self._decide(is_end=False)

    def finish(self) -> list[Placed[Item]]:
        """The frames that still wait, after the last one was added."""
        return self._decide(is_end=True)

    def _unwrapped(self, stamp_s: Fraction | None) -> Fraction | None:
        """The stamp as if the counter had gone on, or back, the shorter way from the last good one."""
        waiting_s = next((waiting for _, waiting in self._waiting if waiting is not None), None)
        reference_s = waiting_s if self._last_stamp_s is None else self._last_stamp_s
        if stamp_s is None or reference_s is None or self._wrap_s is None:
            return stamp_s
        return reference_s + shorter_step(stamp_s - reference_s, self._wrap_s)

    def _follows(self, stamp_s: Fraction | None, before_s: Fraction, *, frames: int = 1) -> bool:
        """Whether a stamp lies so far after another as the number of frames from that one to it allows."""
        if stamp_s is None:
            return False
        return 0 < stamp_s - before_s <= self._longest_step_s + (frames - 1) * self._interval_s

    def _decide(self, *, is_end: bool) -> list[Placed[Item]]:
        placed: list[Placed[Item]] = []
        while self._waiting:
            one = self._begin(is_end) if self._last_stamp_s is None else self._go_on(self._last_stamp_s, is_end)
            if not one:
                break
            placed += one
        return placed

    def _begin(self, is_end: bool) -> list[Placed[Item]]:
        """Places the first frame; the second one tells whether its stamp can be believed."""
        stamps = [stamp_s for _, stamp_s in self._waiting]
        first = stamps[0]
        others = [stamp_s for stamp_s in stamps[1:] if stamp_s is not None]
        is_followed = first is not None and any(self._follows(other, first, frames=4) for other in others)
        if not is_followed and not is_end and len(stamps) <= _WITNESSES:
            return []
        if first is not None and (is_followed or not others):
            origin_s = first
        else:
            after = sorted(stamp_s for stamp_s in others if first is not None and stamp_s > first)
            if first is not None and after and after[0] - first <= _lone_gap(after[min(1, len(after) - 1)] - after[0]):
                origin_s = first
            else:
                # The frames after it tell when it would have been shown.
                next_at = next((number for number, stamp_s in enumerate(stamps) if number and stamp_s is not None), 0)
                next_s = stamps[next_at]
                self.outliers += 1
                origin_s = (next_s or Fraction(0)) - next_at * self._interval_s
        if self.zero_s is None:
            self.zero_s = origin_s
        item, _ = self._waiting.pop(0)
        self._last_stamp_s, self._last_time_s = origin_s, origin_s - self.zero_s
        return [Placed(item, self._last_time_s)]

    def _go_on(self, last_s: Fraction, is_end: bool) -> list[Placed[Item]]:
        """Places the first of the waiting frames, and with it those that are outliers; none if more must come."""
        stamps = [stamp_s for _, stamp_s in self._waiting]
        first = stamps[0]
        follows = first is not None and self._follows(first, last_s)
        if first is not None and follows and not self._is_surprising(first - last_s):
            return [self._place(first)]
        is_ahead = first is not None and first > last_s
        for number, stamp_s in enumerate(stamps[1:], 1):
            is_better = not is_ahead or stamp_s is None or first is None or stamp_s <= first
            if is_better and self._follows(stamp_s, last_s, frames=number + 1):
                return self._place_between(number, last_s)
        if not is_end and len(stamps) <= _WITNESSES:
            return []
        good = self._return_from_outliers(stamps, last_s)
        if first is None or not (is_ahead or good is None):
            return self._place_between(good, last_s) if good is not None else [self._place_without_stamp(last_s)]
        is_borne_out = _grows(stamps) >= (1 if is_end else _WITNESSES - 1)
        is_alone = len(stamps) == 1 and 0 < first - last_s <= _lone_gap(max(self._step_s, self._last_gap_s))
        if follows or is_borne_out or is_alone:
            return [self._place_at(first)]
        return self._place_between(good, last_s) if good is not None else [self._place_without_stamp(last_s)]

    def _is_surprising(self, step_s: Fraction) -> bool:
        return step_s > _SURPRISING_STEPS * max(self._interval_s, self._step_s)

    @staticmethod
    def _return_from_outliers(stamps: list[Fraction | None], last_s: Fraction) -> int | None:
        """Which waiting frame goes on after the last good stamp, at any distance, because those after it do as well."""
        first = stamps[0]
        for number, stamp_s in enumerate(stamps[1:], 1):
            if stamp_s is not None and stamp_s > last_s and (first is None or first <= last_s or stamp_s < first):
                is_borne_out = _grows(stamps[number:]) == len(stamps) - number - 1 and len(stamps) >= 2 * number
                return number if is_borne_out else None
        return None

    def _place_at(self, stamp_s: Fraction) -> Placed[Item]:
        """Places a frame at its stamp, at any distance."""
        assert self._last_stamp_s is not None
        by_s = stamp_s - self._last_stamp_s
        if 0 < by_s <= self._longest_step_s:
            return self._place(stamp_s)
        to_s = self._last_time_s + (by_s if by_s > 0 else self._interval_s)
        return self._place(stamp_s, Jump(after_s=self._last_time_s, to_s=to_s, by_s=by_s))

    def _place(self, stamp_s: Fraction, jump: Jump | None = None) -> Placed[Item]:
        assert self._last_stamp_s is not None
        item, _ = self._waiting.pop(0)
        if jump is None:
            self._step_s = stamp_s - self._last_stamp_s
        else:
            self._last_gap_s = jump.by_s
        self._last_time_s = self._last_time_s + self._step_s if jump is None else jump.to_s
        self._last_stamp_s = stamp_s
        return Placed(item, self._last_time_s, jump)

    def _place_between(self, good: int, last_s: Fraction) -> list[Placed[Item]]:
        """Frames before the one with a good stamp lie evenly between it and the last good one."""
        good_s = self._waiting[good][1]
        assert good_s is not None
        step_s = (good_s - last_s) / (good + 1)
        self.outliers += good
        return [self._place_at(last_s + (number + 1) * step_s) for number in range(good)] + [self._place_at(good_s)]

    def _place_without_stamp(self, last_s: Fraction) -> Placed[Item]:
        self.outliers += 1
        return self._place(last_s + self._interval_s)


def shorter_step(step_s: Fraction, wrap_s: Fraction) -> Fraction:
    """The difference of two stamps of a counter that begins anew after so many seconds: forward or back."""
    return (step_s + wrap_s / 2) % wrap_s - wrap_s / 2


def _lone_gap(step_s: Fraction) -> Fraction:
    return max(LONE_GAP_S, _SURPRISING_STEPS * step_s)


def _grows(stamps: list[Fraction | None]) -> int:
    """How many frames after the first one have stamps that grow from its own, at best (the longest such row)."""
    rows: list[tuple[Fraction, int]] = []
    for stamp_s in stamps:
        if stamp_s is not None and (not rows or stamp_s > rows[0][0]):
            rows.append((stamp_s, 1 + max((count for before_s, count in rows if before_s < stamp_s), default=-1)))
    return max((count for _, count in rows), default=0)
