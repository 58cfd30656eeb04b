"""When a live frame was due: the clock by which being late is told."""

from fractions import Fraction

_DRIFT = 0.01  # clocks of cameras and computers differ by far less; what is late for good counts for a while only


class ArrivalClock:
    """Relates the times of a live stream's frames to the monotonic clock by those that came the earliest.

    Frames may come late, held up in networks and queues, but never early. The difference of both clocks creeps after a
    later one by 1 % of the time, so that a camera whose clock is slow is not late without end.
    """

    def __init__(self) -> None:
        self._zero_at_s: float | None = None  # when time 0 was due
        self._last_time_s = Fraction(0)

    def due_at_s(self, time_s: Fraction, arrived_at_s: float) -> float:
        """When a frame would have come, had nothing been slow.

        Args:
            time_s: of the frame in the stream.
            arrived_at_s: when it came, on the monotonic clock.
        """
        zero_at_s = arrived_at_s - float(time_s)
        if self._zero_at_s is not None:
            creeping_s = self._zero_at_s + _DRIFT * max(float(time_s - self._last_time_s), 0.0)
            zero_at_s = min(zero_at_s, creeping_s)
        self._zero_at_s, self._last_time_s = zero_at_s, time_s
        return zero_at_s + float(time_s)
