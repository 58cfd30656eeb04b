"""Network streams and cameras: read by a thread that nobody has to wait for, since a frame may never come."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from step.errors import StepError
from step_runtime.clips.channel import Channel, Stopped
from step_runtime.sources.arrival import ArrivalClock
from step_runtime.sources.base import SourceFrame

OPEN_TIMEOUT_S = 10.0
_OPEN_GRACE_S = 2.0  # for what the library's own time limit does not cover, such as the name server
_FRAMES_WAITING = 32  # 3 MB each at 1080p
_LONGEST_PAUSE_S = 30.0
_END_SLACK_S = Fraction(1)  # a recording that ends so near its stated end has ended, and did not break
_CLOCK_TICKS = 1000


@dataclass(frozen=True)
class LiveOptions:
    """What to do when a live source stands still or breaks.

    Attributes:
        stall_timeout_s: seconds without a frame after which it counts as broken.
        reconnect: connect again, after growing pauses, until the run is stopped; else the run ends with an error.
        first_pause_s: seconds before it is connected to again; each failure doubles them, up to half a minute.
        say: is called with a line on each break and each new connection.
    """

    stall_timeout_s: float = 10.0
    reconnect: bool = False
    first_pause_s: float = 1.0
    say: Callable[[str], None] = lambda _line: None


DEFAULT_OPTIONS = LiveOptions()


class Connection(Protocol):
    """An open stream or camera.

    Attributes:
        interval_s, slack_s, duration_s, is_live: see `Source`.
        description: codec, container, size and rate, as far as they are known.
    """

    interval_s: Fraction
    slack_s: Fraction
    duration_s: Fraction | None
    is_live: bool
    description: str

    def frames(self) -> Iterator[SourceFrame]:
        """Until the end; to be called once.

        Raises:
            StepError: the connection broke.
        """

    def close(self) -> None:
        """Lets go of it; called by the thread that reads it."""


class LiveSource:
    """A source that may stand still; see `Source` for the attributes.

    It is connected to once, when it is made, since some servers admit one client. A live source's end is a problem: its
    server died, or the camera was pulled out.

    Args:
        name: what results call it.
        shown: what messages call it.
        connect: opens it; called in a thread.
        options: what to do when it stands still or breaks.

    Attributes:
        reconnects: how often it was connected to again.
        dropped_frames: how many were not taken in time.

    Raises:
        StepError: it cannot be opened.
    """

    def __init__(
        self, name: str, *, shown: str, connect: Callable[[], Connection], options: LiveOptions = DEFAULT_OPTIONS
    ) -> None:
        self.name = name
        self.problem: str | None = None
        self.notes: list[str] = []  # they are said when they happen
        self.reconnects = 0
        self._shown = shown
        self._connect = connect
        self._options = options
        self._stopped = threading.Event()  # of the reading under way
        self._dropped_before = 0
        self._reader: _Reader | None = None
        reader = self._open()
        connection = reader.opened()
        self.interval_s, self.slack_s = connection.interval_s, connection.slack_s
        self.duration_s, self.is_live = connection.duration_s, connection.is_live
        self.description = connection.description

    @property
    def dropped_frames(self) -> int:
        """See the class."""
        return self._dropped_before + (0 if self._reader is None else self._reader.dropped)

    def stop(self) -> None:
        """See `Stoppable.stop`."""
        self._stopped.set()
        reader = self._reader
        if reader is not None:
            reader.release()

    def frames(self) -> Iterator[SourceFrame]:
        """See `Source.frames`; after a new connection, time goes on as the clock did and a new segment starts."""
        self.problem = None
        self._stopped = stopped = threading.Event()
        return self._read(stopped)

    def _read(self, stopped: threading.Event) -> Iterator[SourceFrame]:
        previous: SourceFrame | None = None
        started_at_s = 0.0  # when time 0 was due, on the monotonic clock
        pause_s = self._options.first_pause_s
        try:
            while True:
                begin_s, base = time.monotonic(), previous
                shift_s = Fraction(0)
                reader = self._reader or self._open()
                try:
                    for frame in reader.frames(self._options.stall_timeout_s):
                        if base is previous:
                            due_at_s = time.monotonic() if frame.due_at_s is None else frame.due_at_s
                            if base is None:
                                started_at_s = due_at_s - float(frame.time_s)
                            else:
                                gone_s = Fraction(round((due_at_s - started_at_s) * _CLOCK_TICKS), _CLOCK_TICKS)
                                shift_s = max(gone_s, base.time_s + self.interval_s) - frame.time_s
                        previous = self._shifted(frame, shift_s, base, is_first=base is previous)
                        yield previous
                    broke = None
                except StepError as error:
                    broke = str(error)
                self._let_go()
                if stopped.is_set():
                    return
                problem = self._describe_end(broke, previous)
                if problem is None:
                    return
                if not self._options.reconnect or not self.is_live:
                    self._give_up(problem, has_frames=previous is not None)
                    return
                if time.monotonic() - begin_s > 2 * pause_s:
                    pause_s = self._options.first_pause_s
                self._options.say(f"{problem}; connecting again in {pause_s:g} s")
                if stopped.wait(pause_s):
                    return
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                self.reconnects += 1
        finally:
            self._let_go()

    def _open(self) -> "_Reader":
        self._reader = reader = _Reader(self._connect, shown=self._shown)
        if self._stopped.is_set():  # `stop` may have come before the assignment
            reader.release()
        return reader

    def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            self._dropped_before += reader.dropped
            reader.release()

    def _shifted(
        self, frame: SourceFrame, shift_s: Fraction, base: SourceFrame | None, *, is_first: bool
    ) -> SourceFrame:
        if base is None:
            return frame
        return replace(
            frame,
            time_s=frame.time_s + shift_s,
            index=base.index + 1 + frame.index,
            starts_segment=is_first or frame.starts_segment,
        )

    def _describe_end(self, broke: str | None, last: SourceFrame | None) -> str | None:
        """What is wrong with the end that came; None for a recording that was read to its end."""
        end_s = Fraction(0) if last is None else last.time_s + self.interval_s
        if broke is not None and broke.startswith(self._shown):  # it says all by itself
            return broke
        if broke is not None:
            return f"{self._shown}: broke at {float(end_s):.2f} s ({broke})"
        if not self.is_live:
            return None
        # A recorder that sends a recording at its pace states how long it is, and ends it.
        if self.duration_s is None:
            return f"{self._shown}: the stream ended at {float(end_s):.2f} s"
        is_whole = self.duration_s - end_s <= _END_SLACK_S
        whole = f"{float(self.duration_s):.2f} s"
        return None if is_whole else f"{self._shown}: broke at {float(end_s):.2f} s of {whole}"

    def _give_up(self, problem: str, *, has_frames: bool) -> None:
        if not has_frames:
            raise StepError(f"{problem}; no frame could be decoded")
        self.problem = f"{problem}; --reconnect waits for it to come back" if self.is_live else problem


class _Reader:
    """One connection, in a thread that ends by itself when it is let go: what it waits for may take its time."""

    def __init__(self, connect: Callable[[], Connection], *, shown: str) -> None:
        self._connect = connect
        self._shown = shown
        self._connection: Connection | None = None
        self._failure: BaseException | None = None
        self._ready = threading.Event()  # opened, failed, or let go
        self._released = threading.Event()
        self._frames: Channel[SourceFrame] | None = None  # once it is open
        self._lock = threading.Lock()
        threading.Thread(target=self._work, name=f"live-{shown}", daemon=True).start()

    @property
    def dropped(self) -> int:
        return 0 if self._frames is None else self._frames.dropped

    def opened(self) -> Connection:
        """Waits for the connection.

        Raises:
            StepError: it cannot be opened, or took too long.
        """
        try:
            is_ready = self._ready.wait(OPEN_TIMEOUT_S + _OPEN_GRACE_S)
        except BaseException:
            self.release()
            raise
        if self._failure is not None:
            raise self._failure
        if not is_ready or self._connection is None:
            self.release()
            waited_s = OPEN_TIMEOUT_S + _OPEN_GRACE_S
            raise StepError(f"{self._shown}: cannot open: no answer in {waited_s:g} s; check that it is reachable")
        return self._connection

    def release(self) -> None:
        """Nobody waits for this connection any more; a waiting `frames` ends."""
        with self._lock:
            self._released.set()
            self._ready.set()
            if self._frames is not None:
                self._frames.stop()

    def frames(self, stall_timeout_s: float) -> Iterator[SourceFrame]:
        """The frames until the end, or until it is let go.

        Raises:
            StepError: the connection broke or could not be made, or no frame came for too long.
        """
        self._ready.wait(OPEN_TIMEOUT_S + _OPEN_GRACE_S)
        if self._released.is_set():
            return
        self.opened()
        assert self._frames is not None
        frames = iter(self._frames)
        while True:
            if not self._frames.wait(stall_timeout_s):
                raise StepError(f"no frame came for {stall_timeout_s:g} s, see --stall-timeout")
            frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _work(self) -> None:
        connection: Connection | None = None
        try:
            connection = self._connect()
            channel: Channel[SourceFrame] = Channel(capacity=_FRAMES_WAITING, drop_oldest=connection.is_live)
            with self._lock:
                if self._released.is_set():
                    return
                self._connection, self._frames = connection, channel
            self._ready.set()
            self._pass_on(connection, channel)
        except BaseException as error:  # noqa: BLE001 - it is not swallowed: `opened` raises it
            self._failure = error
        finally:
            self._ready.set()
            if connection is not None:
                connection.close()

    @staticmethod
    def _pass_on(connection: Connection, channel: Channel[SourceFrame]) -> None:
        clock = ArrivalClock()
        try:
            for frame in connection.frames():
                is_live = connection.is_live
                due_at_s = clock.due_at_s(frame.time_s, time.monotonic()) if is_live else None
                channel.put(replace(frame, due_at_s=due_at_s))
            channel.end()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - it is not swallowed: whoever takes the frames raises it
            channel.end(error)
