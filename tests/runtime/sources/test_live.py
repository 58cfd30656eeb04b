"""Live sources: what their end means, standing still, connecting again, stopping, being late."""

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.clips.feature_windows import WindowBuffer, WindowPlan
from step_runtime.sources.arrival import ArrivalClock
from step_runtime.sources.base import SourceFrame
from step_runtime.sources.live import LiveOptions, LiveSource
from step_runtime.sources.stream import is_live_stream, shown_url

from step import StepConfig, StepError

CONFIG = StepConfig(image_size_px=32)
INTERVAL_S = Fraction(1, 25)


def _frame(index: int) -> SourceFrame:
    pixels = np.full((8, 8, 3), index % 256, np.uint8)
    return SourceFrame(time_s=index * INTERVAL_S, index=index, width_px=8, height_px=8, rgb=lambda: pixels)


class FakeConnection:
    """Gives some frames, then ends, breaks or waits until it is told to go on."""

    interval_s, slack_s, description = INTERVAL_S, Fraction(0), "fake"

    def __init__(
        self,
        frames: int = 5,
        *,
        duration_s: Fraction | None = None,
        is_live: bool = True,
        breaks: bool = False,
        freezes: threading.Event | None = None,
    ) -> None:
        self.duration_s, self.is_live = duration_s, is_live
        self._frames, self._breaks, self._freezes = frames, breaks, freezes
        self.closed = threading.Event()

    def frames(self) -> Iterator[SourceFrame]:
        yield from map(_frame, range(self._frames))
        if self._freezes is not None:
            self._freezes.wait(30)
        if self._breaks:
            raise StepError("connection reset by peer")

    def close(self) -> None:
        self.closed.set()


def _source(*connections: FakeConnection | StepError, **options) -> LiveSource:
    """A source that is connected to once for each of these."""
    waiting = list(connections)

    def connect() -> FakeConnection:
        found = waiting.pop(0)
        if isinstance(found, StepError):
            raise found
        return found

    return LiveSource(
        "cam", shown="rtsp://host/cam", connect=connect, options=LiveOptions(first_pause_s=0.001, **options)
    )


def test_a_live_source_that_ends_has_a_problem():
    connection = FakeConnection(5)
    source = _source(connection)
    assert [frame.index for frame in source.frames()] == [0, 1, 2, 3, 4]
    assert source.problem == "rtsp://host/cam: the stream ended at 0.20 s; --reconnect waits for it to come back"
    assert connection.closed.wait(5)


def test_a_live_source_that_breaks():
    source = _source(FakeConnection(5, breaks=True))
    assert len(list(source.frames())) == 5
    assert "broke at 0.20 s (connection reset by peer); --reconnect" in source.problem


def test_a_stated_range_is_an_end_where_it_is_reached():
    source = _source(FakeConnection(5, duration_s=Fraction(1, 5)))
    assert len(list(source.frames())) == 5
    assert source.problem is None
    source = _source(FakeConnection(5, duration_s=Fraction(60)))
    assert len(list(source.frames())) == 5
    assert "broke at 0.20 s of 60.00 s; --reconnect" in source.problem


def test_a_recording_behind_a_url():
    """Nothing is dropped however slow the reader is, and its end is no problem."""
    source = _source(FakeConnection(200, is_live=False))
    assert [frame.index for frame in source.frames()] == list(range(200))
    assert source.problem is None
    source = _source(FakeConnection(200, is_live=False, breaks=True), reconnect=True)
    assert len(list(source.frames())) == 200
    assert source.problem == "rtsp://host/cam: broke at 8.00 s (connection reset by peer)"


def test_frames_that_nobody_takes_are_dropped_and_counted():
    end = threading.Event()
    source = _source(FakeConnection(500, freezes=end))
    frames = source.frames()
    first = next(frames)
    deadline_s = time.monotonic() + 10
    while source.dropped_frames < 400 and time.monotonic() < deadline_s:
        pass
    end.set()
    rest = list(frames)
    assert first.index == 0 or source.dropped_frames > 400
    assert rest[-1].index == 499
    assert source.dropped_frames + 1 + len(rest) == 500


def test_standing_still_is_told():
    end = threading.Event()
    source = _source(FakeConnection(5, freezes=end), stall_timeout_s=0.2)
    assert len(list(source.frames())) == 5
    end.set()
    assert "broke at 0.20 s (no frame came for 0.2 s, see --stall-timeout)" in source.problem


def test_connecting_again():
    """Time goes on as the clock did, a new segment starts, each break is told."""
    said: list[str] = []
    first, second = FakeConnection(5), FakeConnection(4, breaks=True)
    refused = StepError("rtsp://host/cam: cannot open: Connection refused; check that it is reachable")
    end = threading.Event()
    third = FakeConnection(3, freezes=end)
    source = _source(first, second, refused, third, reconnect=True, say=said.append)
    frames = source.frames()
    found = [next(frames) for _ in range(12)]
    source.stop()
    assert next(frames, None) is None
    end.set()
    assert source.problem is None
    assert source.reconnects == 3
    assert [frame.index for frame in found] == list(range(12))
    assert [frame.index for frame in found if frame.starts_segment] == [5, 9]
    times_s = [frame.time_s for frame in found]
    assert all(later - earlier >= INTERVAL_S for earlier, later in itertools.pairwise(times_s))
    assert len(said) == 3
    assert said[0].endswith("the stream ended at 0.20 s; connecting again in 0.001 s")
    assert said[2] == f"{refused}; connecting again in 0.004 s"


def test_a_source_that_never_opens():
    with pytest.raises(StepError, match="no route to host"):
        _source(StepError("rtsp://host/cam: cannot open: no route to host"), reconnect=True)


def test_a_source_without_a_frame():
    with pytest.raises(StepError, match="the stream ended at 0.00 s; no frame could be decoded"):
        list(_source(FakeConnection(0)).frames())


@pytest.mark.parametrize("where", ["frozen", "pause", "opening"])
def test_a_stop_is_at_once(where):
    """Whatever the reading thread waits for; it is left alone and ends by itself."""
    end, told = threading.Event(), threading.Event()
    connections = [FakeConnection(3, freezes=end if where == "frozen" else None)]
    source = LiveSource(
        "cam",
        shown="cam",
        connect=lambda: connections.pop() if connections else _wait_for(end),
        options=LiveOptions(
            stall_timeout_s=60,
            reconnect=True,
            first_pause_s=60 if where == "pause" else 0.001,
            say=lambda _line: told.set(),
        ),
    )
    frames = source.frames()
    for _ in range(3):
        next(frames)
    rest: list[SourceFrame] = []
    reader = threading.Thread(target=lambda: rest.extend(frames))
    reader.start()
    if where != "frozen":
        assert told.wait(10)
    start_s = time.monotonic()
    source.stop()
    reader.join(10)
    assert time.monotonic() - start_s < 2
    assert not reader.is_alive()
    assert not rest
    end.set()


def _wait_for(end: threading.Event) -> FakeConnection:
    end.wait(30)
    raise StepError("cam: cannot open: interrupted")


def test_what_is_live():
    for url in ("rtsp://h/s", "RTMP://h/s", "srt://h:1", "udp://@:5000", "rtp://h:5004", "rtsps://h"):
        assert is_live_stream(url, duration_s=Fraction(60), size_bytes=1000)
    assert is_live_stream("http://h/s.ts", duration_s=None, size_bytes=-38)
    assert not is_live_stream("https://h/a.ts", duration_s=None, size_bytes=1000)
    assert not is_live_stream("https://h/a.m3u8", duration_s=Fraction(60), size_bytes=-38)
    assert not is_live_stream("file:///a.mp4", duration_s=Fraction(60), size_bytes=1000)


def test_passwords_are_not_shown():
    assert shown_url("rtsp://admin:se:cr@et@host:554/s?a=b@c") == "rtsp://admin:***@host:554/s?a=b@c"
    assert shown_url("rtsp://host:554/s@x") == "rtsp://host:554/s@x"
    assert shown_url("http://host/a.mp4") == "http://host/a.mp4"


def test_being_late():
    """Against the earliest frames: a burst at the start is no lead, a slow clock is forgiven, falling behind is not."""
    clock = ArrivalClock()
    for index in range(50):  # two seconds that were kept for whoever connects
        clock.due_at_s(Fraction(index, 25), 100.0)
    assert clock.due_at_s(Fraction(2), 100.04) == pytest.approx(100.04, abs=0.001)
    assert clock.due_at_s(Fraction(3), 102.04) == pytest.approx(101.04, abs=0.02)  # a second late
    assert clock.due_at_s(Fraction(4), 102.04) == pytest.approx(102.04, abs=0.04)
    slow = ArrivalClock()
    late_s = [1.001 * second - slow.due_at_s(Fraction(second), 1.001 * second) for second in range(10_000)]
    assert max(late_s) < 0.01
    behind = ArrivalClock()
    late_s = [1.5 * second - behind.due_at_s(Fraction(second), 1.5 * second) for second in range(100)]
    assert late_s[-1] == pytest.approx(0.49 * 99, rel=0.01)


def _segments() -> list[SourceFrame]:
    """Three seconds, then 57 s that nobody saw, then three seconds."""
    second = [replace(_frame(75 + index), time_s=60 + index * INTERVAL_S) for index in range(75)]
    second[0] = replace(second[0], starts_segment=True)
    return [*map(_frame, range(75)), *second]


def test_a_gap_in_time_is_a_gap_in_key_frames():
    buffer = ClipBuffer(config=CONFIG, every_s=Fraction(1), interval_s=INTERVAL_S)
    clips = [clip for frame in _segments() for clip in buffer.add(frame)]
    clips += buffer.finish()
    assert [clip.time_s for clip in clips] == [0, 1, 2, 60, 61, 62]
    assert clips[3].frames.min() == 75  # no picture of before the gap
    assert clips[2].frames.max() == 74


@pytest.mark.parametrize("add_segment", [False, True])
def test_a_gap_in_time_is_a_gap_in_windows(add_segment: bool):
    plan = WindowPlan.of(CONFIG, every_s=Fraction(1), margin=2)
    buffer = WindowBuffer(config=CONFIG, plan=plan, interval_s=INTERVAL_S)
    frames = _segments() if add_segment else _segments()[:75]
    windows = [window for frame in frames for window in buffer.add(frame)]
    windows += buffer.finish()
    keys = [key for window in windows for key in window.keys]
    assert [key.time_s for key in keys] == ([0, 1, 2, 60, 61, 62] if add_segment else [0, 1, 2])
    assert [key.number for key in keys] == list(range(len(keys)))
    known: set[int] = set()
    for window in windows:
        known |= set(range(window.first_group + plan.margin, window.first_group + plan.groups - plan.margin))
        for key in window.keys:
            assert known >= set(range(key.group, key.group + plan.groups))


def test_lag_is_of_the_frame_that_completes_a_clip():
    buffer = ClipBuffer(config=CONFIG, every_s=Fraction(1), interval_s=INTERVAL_S)
    clips = []
    for index in range(75):
        clips += buffer.add(replace(_frame(index), due_at_s=1000.0 + index / 25))
    assert next(clip.ready_at_s for clip in clips) == pytest.approx(1000 + 38 / 25)
