"""When each decoded frame is shown: the one rule of time, for reading on and for seeking (torch-free).

A *stamp* is what the container says; a *time* is what everything here works with. The rule:

1. Time zero is the first frame that can be shown. What lies before it, such as sound, frames that an edit list hides or
   that cannot be decoded because the recording was cut, does not count.
2. A stamp *follows* another if it lies after it, by at most one second (1.5 frame intervals where those are longer).
   While stamps follow each other, times differ as they do: variable rates, jitter and drops are kept exactly.
3. A stamp that does not follow waits for those of the next frames. If one of them follows the last good stamp, the ones
   between are outliers: their frames lie evenly in between, and nothing after them changes. Equal and missing stamps
   are outliers.
4. If instead the next frames follow the new stamp, it is a jump and a new segment begins. After a jump forward, times
   are as stamped: the gap is time. After a jump backward, time goes on one frame interval after the frame before.
5. A lone frame at the very beginning or end that is more than ten seconds away is an outlier. FFmpeg's command line
   takes the same ten seconds for a break (https://ffmpeg.org/ffmpeg.html, `-dts_delta_threshold`).
6. Counters that run over, as MPEG's do after 26.5 hours, are no jump.
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
_LONE_GAP_S = Fraction(10)


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
        self._turns_s = Fraction(0)  # what counters that ran over have lost
        self._last_stamp_s: Fraction | None = None
        self._last_time_s = Fraction(0)
        self._step_s = Fraction(0)  # to the last frame, from the one before it
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
        if stamp_s is None or self._wrap_s is None:
            return stamp_s
        stamp_s += self._turns_s
        last_s = self._last_stamp_s
        if last_s is not None and self._follows(stamp_s + self._wrap_s, last_s, frames=1 + len(self._waiting)):
            self._turns_s += self._wrap_s
            return stamp_s + self._wrap_s
        return stamp_s

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
            # Where the frames after it go on from each other, they tell when the first one would have been.
            next_at = next((number for number, stamp_s in enumerate(stamps) if number and stamp_s is not None), 0)
            next_s = stamps[next_at]
            is_gap = first is not None and next_s is not None and 0 < next_s - first <= _LONE_GAP_S
            if first is not None and is_gap:
                origin_s = first
            else:
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
        if first is not None and self._follows(first, last_s):
            following = stamps[1] if len(stamps) > 1 else None
            is_surprising = first - last_s > _SURPRISING_STEPS * max(self._interval_s, self._step_s)
            if is_surprising and len(stamps) == 1 and not is_end:
                return []
            if not is_surprising or following is None or not last_s < following <= first:
                return [self._place(first)]
        good = next((n for n, stamp_s in enumerate(stamps) if n and self._follows(stamp_s, last_s, frames=n + 1)), None)
        if good is not None:
            return self._place_between(good, last_s)
        if not is_end and len(stamps) <= _WITNESSES:
            return []
        if first is not None:
            is_borne_out = self._witnesses(stamps) >= (1 if is_end else _WITNESSES - 1)
            if is_borne_out or (len(stamps) == 1 and 0 < first - last_s <= _LONE_GAP_S):
                return [self._jump(first, last_s)]
        return [self._place_without_stamp(last_s)]

    def _witnesses(self, stamps: list[Fraction | None]) -> int:
        """How many of the waiting frames go on from the first one."""
        count, before = 0, stamps[0]
        for stamp_s in stamps[1:]:
            if before is not None and self._follows(stamp_s, before):
                count += 1
                before = stamp_s
        return count

    def _place(self, stamp_s: Fraction, jump: Jump | None = None) -> Placed[Item]:
        assert self._last_stamp_s is not None
        item, _ = self._waiting.pop(0)
        if jump is None:
            self._step_s = stamp_s - self._last_stamp_s
        self._last_time_s = self._last_time_s + self._step_s if jump is None else jump.to_s
        self._last_stamp_s = stamp_s
        return Placed(item, self._last_time_s, jump)

    def _place_between(self, good: int, last_s: Fraction) -> list[Placed[Item]]:
        """Frames before the one with a good stamp lie evenly between it and the last good one."""
        good_s = self._waiting[good][1]
        assert good_s is not None
        step_s = (good_s - last_s) / (good + 1)
        self.outliers += good
        return [self._place(last_s + (number + 1) * step_s) for number in range(good)] + [self._place(good_s)]

    def _jump(self, stamp_s: Fraction, last_s: Fraction) -> Placed[Item]:
        by_s = stamp_s - last_s
        to_s = self._last_time_s + (by_s if by_s > 0 else self._interval_s)
        return self._place(stamp_s, Jump(after_s=self._last_time_s, to_s=to_s, by_s=by_s))

    def _place_without_stamp(self, last_s: Fraction) -> Placed[Item]:
        self.outliers += 1
        return self._place(last_s + self._interval_s)
