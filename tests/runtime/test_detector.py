"""Detector.run: threads, order, failures; with a backend that needs no model."""

import itertools
import math
import threading
import time
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import shown_index
from step_runtime import Detector, RunState
from step_runtime.backends.base import Finished
from step_runtime.sources.video import VideoSource

from step import Detections, StepConfig, StepError
from step.clips import clip_offsets_s

CONFIG = StepConfig(image_size_px=32)


class RecordingBackend:
    """Answers every clip with one box and remembers what it was given."""

    name, device, loop, config = "recording", "none", "fused", CONFIG
    min_batch, max_batch, depth = 1, None, 1

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.clips: list[np.ndarray] = []
        self.fail_at = fail_at
        self.closed = False

    def submit(self, frames):
        if len(self.clips) == self.fail_at:
            raise StepError("the worker failed")
        self.clips.append(frames)
        detections = Detections(
            boxes=np.array([[[0.25, 0.25, 0.75, 0.75], [0, 0, 0, 0]]], np.float32),
            scores=np.array([[0.9, 0.0]], np.float32),
            labels=np.array([[14, 0]]),
            tube_indices=np.array([[0, -1]]),
            counts=np.array([1]),
            tubes_px=np.full((1, 34, 9, 4), 8.0, np.float32),
        )
        return Finished(detections)

    def close(self):
        self.closed = True


class LiveSource:
    """A source that gives frames faster than a slow model takes clips."""

    name, interval_s, slack_s, duration_s, is_live, problem = "live", Fraction(1, 25), Fraction(0), None, True, None
    notes = ()

    def __init__(self, inner, fail_after: int | None = None):
        self.inner = inner
        self.fail_after = fail_after
        self.given, self.ended, self.changed = 0, False, threading.Condition()

    def frames(self):
        for index, frame in enumerate(self.inner.frames()):
            if index == self.fail_after:
                raise OSError("the reader failed")
            yield frame
            self._note(given=index + 1)
        self._note(given=self.given, ended=True)

    def _note(self, *, given: int, ended: bool = False) -> None:
        with self.changed:
            self.given, self.ended = given, ended
            self.changed.notify_all()


class SlowBackend(RecordingBackend):
    """Takes as long for a clip as its source for the frames of eight, until the source ends."""

    frames_a_clip = 40

    def __init__(self, source: LiveSource) -> None:
        super().__init__()
        self.source = source
        self.waited_s: list[float] = []

    def submit(self, frames):
        start_s = time.monotonic()
        wanted = self.source.given + self.frames_a_clip
        with self.source.changed:
            assert self.source.changed.wait_for(lambda: self.source.ended or self.source.given >= wanted, timeout=60)
        self.waited_s.append(time.monotonic() - start_s)
        return super().submit(frames)


def _alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("step-")]


def test_key_frames_in_order(make_video):
    backend = RecordingBackend()
    state = RunState()
    with Detector(backend) as detector:
        found = list(detector.run(make_video(frames=100), state=state))
    assert [key.time_s for key in found] == [0, 1, 2, 3]
    assert [key.frame for key in found] == [0, 25, 50, 75]
    assert found[0].video == "video"
    assert (found[0].width_px, found[0].height_px) == (96, 64)
    assert [shown_index(clip[0, 17]) for clip in backend.clips] == [0, 25, 50, 75]
    assert not state.problems
    assert backend.closed
    assert not _alive()


def test_every_frame(make_video):
    found = list(Detector(RecordingBackend()).run(make_video(frames=20), every_s=None))
    assert [key.frame for key in found] == list(range(20))


def test_a_folder_of_videos(make_video, tmp_path):
    make_video("a.mp4"), make_video("b.mp4")
    found = list(Detector(RecordingBackend()).run(tmp_path))
    assert [(key.video, key.time_s) for key in found] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_a_failing_worker_ends_the_reader(make_video):
    detector = Detector(RecordingBackend(fail_at=1))
    found = []
    with pytest.raises(StepError, match="the worker failed"):
        for key in detector.run(make_video(frames=100)):
            found.append(key)
    assert len(found) == 1
    assert not _alive()


def test_a_failing_reader_reaches_the_consumer(make_video):
    source = LiveSource(VideoSource(str(make_video(frames=100))), fail_after=70)
    source.is_live = False
    found = []
    with pytest.raises(OSError, match="the reader failed"):
        for key in Detector(RecordingBackend()).run(source):
            found.append(key)
    assert [key.time_s for key in found] == [0, 1]
    assert not _alive()


def test_a_consumer_that_stops_ends_the_reader(make_video):
    run = Detector(RecordingBackend()).run(make_video(frames=200), every_s=None)
    next(run)
    run.close()
    assert not _alive()


def test_live_sources_drop_the_oldest_clips(make_video):
    source = LiveSource(VideoSource(str(make_video(frames=240))))
    state = RunState()
    found, dropped = [], []
    backend = SlowBackend(source)
    for key in Detector(backend).run(source, every_s=Fraction(1, 5), state=state):
        found.append(key)
        dropped.append(state.dropped_clips)
    assert dropped[-2] > 0  # told while the run goes on, not only at its end
    assert state.dropped_clips > 0
    assert len(found) + state.dropped_clips == 48
    assert found[-1].time_s == Fraction(47, 5)
    assert all(key.lag_s >= waited_s for key, waited_s in zip(found, backend.waited_s, strict=True))


class PipelinedBackend(RecordingBackend):
    """Takes a second clip before the first one's result is asked for; `order` is what it was asked."""

    depth = 2

    def __init__(self):
        super().__init__()
        self.order: list[str] = []
        self.answered = threading.Condition()

    def submit(self, frames):
        self.order.append("submit")
        detections = super().submit(frames).detections

        def result():
            with self.answered:
                self.order.append("result")
                self.answered.notify_all()
            return detections

        return SimpleNamespace(result=result)

    def wait_for_results(self, count):
        with self.answered:
            assert self.answered.wait_for(lambda: self.order.count("result") >= count, timeout=60)


def test_a_second_clip_is_started_while_the_first_is_computed(make_video):
    backend = PipelinedBackend()
    source = LiveSource(VideoSource(str(make_video(frames=100))))
    source.is_live = False
    clips = Detector(backend).run(source)
    next(clips)
    with source.changed:  # the reader goes ahead until clips are waiting
        assert source.changed.wait_for(lambda: source.given >= 90, timeout=60)
    assert [key.time_s for key in clips] == [1, 2, 3]
    assert ("submit", "submit") in itertools.pairwise(backend.order)
    assert backend.order.count("result") == 4


def test_a_result_does_not_wait_for_the_next_clip(make_video):
    backend = PipelinedBackend()
    every_s, last_offset_s = Fraction(2, 5), clip_offsets_s(CONFIG.clip_frames)[-1]

    class WaitingSource(LiveSource):
        """Gives the frames of the next clip when the result of the last one was taken."""

        def frames(self):
            for frame in super().frames():
                yield frame
                whole_clips = math.ceil((frame.time_s - last_offset_s) / every_s)
                backend.wait_for_results(whole_clips)

    source = WaitingSource(VideoSource(str(make_video(frames=60))))
    assert len(list(Detector(backend).run(source, every_s=every_s))) >= 4
    assert backend.order[:6] == ["submit", "result"] * 3  # the last clips come together, when the video ends


def test_a_video_that_breaks_off_leaves_a_problem(make_video):
    path = make_video(frames=100, options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])
    state = RunState()
    found = list(Detector(RecordingBackend()).run(path, state=state))
    assert found
    assert "broke at" in state.problems[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every_s": Fraction(0)}, "`every_s` is 0; it must be above 0 seconds"),
        ({"every_s": -1.5}, "`every_s` is -1.5; it must be above 0 seconds"),
        ({"every_s": "1"}, "`every_s` is '1'; it must be above 0 seconds"),
        ({"frames_fps": 0}, "`frames_fps` is 0; it must be above 0"),
        ({"frames_fps": "30"}, "`frames_fps` is '30'; it must be above 0"),
        ({"reuse_backbone": "no"}, "`reuse_backbone` is 'no'; give True or False"),
        ({"reuse_margin": -1}, "`reuse_margin` is -1; it must be a whole number of at least 0"),
        ({"state": {}}, "`state` is {}; give a RunState"),
    ],
)
def test_arguments_that_are_refused(arguments, said, make_video):
    """When it is called, not when the first key frame is asked for."""
    with pytest.raises(StepError) as error:
        Detector(RecordingBackend()).run(make_video(frames=1), **arguments)
    assert str(error.value) == said


def test_intervals_as_people_write_them(make_video):
    found = Detector(RecordingBackend()).run(make_video(frames=30), every_s=1 / 3)
    assert [key.scheduled_s for key in found] == [0, Fraction(1, 3), Fraction(2, 3), 1]


def test_a_list_of_sources(make_video, tmp_path):
    """Paths, text, folders and sources of one's own, one after the other."""
    one, folder = make_video("one.mp4"), tmp_path / "folder"
    folder.mkdir()
    make_video("folder/two.mp4")
    own = LiveSource(VideoSource(str(one)))
    own.is_live = False
    found = Detector(RecordingBackend()).run([one, str(folder), own])
    assert [(key.video, key.time_s) for key in found] == [(name, t) for name in ("one", "two", "live") for t in (0, 1)]


def test_an_int_is_a_camera(tmp_path, monkeypatch):
    """Whatever lies there under that name."""
    (tmp_path / "99").write_text("no video")
    monkeypatch.chdir(tmp_path)
    run = Detector(RecordingBackend()).run([99])
    with pytest.raises(StepError, match="^camera 99: cannot open; is it connected and free"):
        next(run)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([], "`source` is an empty list; give at least one video, folder, camera's number or URL"),
        (-1, "`source` is -1; it must be a whole number from 0 to"),
        (True, "`source` is True; it must be a whole number from 0 to"),
        (None, "`source` is of the type NoneType; give a video, a folder, a camera's number, a URL, a Source"),
        (np.zeros((4, 4, 3), np.uint8), "`source` is of the type ndarray; .*: Detector.stream"),
        ([["a.mp4"]], "`source` is of the type list; give a video"),
        (
            SimpleNamespace(name="n", frames=list, notes=[]),
            "`source` is a SimpleNamespace without interval_s, slack_s,",
        ),
        (["missing.mp4"], "^missing.mp4: no such file or folder"),
    ],
)
def test_sources_that_are_none(source, said):
    with pytest.raises(StepError, match=said):
        Detector(RecordingBackend()).run(source)


def test_a_closed_detector_says_so(make_video):
    """Every method, whether or not the model would."""
    path, clips = make_video(frames=60), np.zeros((1, 36, 32, 32, 3), np.uint8)
    detector = Detector(RecordingBackend())
    under_way = detector.run([path, path], every_s=1)
    next(under_way)
    detector.close()
    detector.close()
    calls = {
        "detect": lambda: detector.detect(clips),
        "detect_every_step": lambda: detector.detect_every_step(clips),
        "gives_every_step": lambda: detector.gives_every_step,
        "run": lambda: detector.run(path),
        "stream": lambda: detector.stream(fps=25),
        "__enter__": detector.__enter__,
        "a run under way": lambda: list(under_way),
    }
    for name, call in calls.items():
        with pytest.raises(RuntimeError) as error:
            call()
        assert str(error.value) == "the model is closed; open it again", name
    assert detector.config == CONFIG
    assert not _alive()
