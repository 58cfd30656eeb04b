"""Which frames windows show, against SPEC's rule on indices; which key frames come with them."""

import math
import random
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from step_runtime.clips import feature_windows
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.clips.feature_windows import WindowBuffer, WindowPlan
from step_runtime.sources.base import SourceFrame

from step import StepConfig, StepError

CONFIG = StepConfig(image_size_px=32)
THIRD = Fraction(1, 3)
RATES = [Fraction(5), Fraction(12), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(50)]


def _frame(index: int, time_s: Fraction, converted: list[int]) -> SourceFrame:
    """Two channels of every pixel spell the index."""

    def rgb() -> np.ndarray:
        converted.append(index)
        pixels = np.zeros((8, 12, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = divmod(index, 256)
        return pixels

    return SourceFrame(time_s=time_s, index=index, width_px=12, height_px=8, rgb=rgb)


def _windows(times, *, every_s=THIRD, margin=2, interval_s=Fraction(1, 25), slack_s=Fraction(0), config=CONFIG):
    plan = WindowPlan.of(config, every_s=every_s, margin=margin)
    buffer = WindowBuffer(config=config, plan=plan, interval_s=interval_s, slack_s=slack_s)
    converted: list[int] = []
    windows = []
    for index, time_s in enumerate(times):
        windows += buffer.add(_frame(index, time_s, converted))
    windows += buffer.finish()
    assert buffer.key_count == sum(len(window.keys) for window in windows)
    return plan, windows, converted


def _shown(window) -> list[int]:
    first = window.frames[:, 0, 0].astype(int)
    return (first[:, 0] * 256 + first[:, 1]).tolist()


def _slots(window, config=CONFIG) -> range:
    """Moments n / 12 s that a window shows: the first clip's begin F / 2 - 1 before 0."""
    first = 4 * window.first_group - (config.clip_frames // 2 - 1)
    return range(first, first + config.clip_frames)


@pytest.mark.parametrize("margin", [0, 1, 2, 3])
@pytest.mark.parametrize("rate", RATES)
def test_windows_show_what_is_on_display(rate, margin):
    count = math.ceil(7 * rate)
    plan, windows, _ = _windows([index / rate for index in range(count)], margin=margin, interval_s=1 / rate)
    assert [window.first_group for window in windows] == [
        number * (9 - 2 * margin) - margin for number in range(len(windows))
    ]
    for window in windows:
        assert window.frames.shape == (36, 32, 32, 3)
        expected = [min(max(math.floor(Fraction(slot, 12) * rate), 0), count - 1) for slot in _slots(window)]
        assert _shown(window) == expected
    # No more windows than the last clip needs.
    last = windows[-1].keys[-1]
    assert windows[-1].first_group + margin < last.group + 9 <= windows[-1].first_group + 9 - margin
    assert plan.advance == 9 - 2 * margin


@pytest.mark.parametrize("every_s", [THIRD, 2 * THIRD, Fraction(1)])
@pytest.mark.parametrize("rate", RATES)
def test_key_frames_are_those_of_whole_clips(rate, every_s):
    times = [index / rate for index in range(math.ceil(5 * rate))]
    _, windows, _ = _windows(times, every_s=every_s, interval_s=1 / rate)
    keys = [key for window in windows for key in window.keys]
    buffer = ClipBuffer(config=CONFIG, every_s=every_s, interval_s=1 / rate)
    clips = [clip for index, time_s in enumerate(times) for clip in buffer.add(_frame(index, time_s, []))]
    clips += buffer.finish()
    for name in ("scheduled_s", "time_s", "frame", "width_px", "height_px"):
        assert [getattr(key, name) for key in keys] == [getattr(clip, name) for clip in clips], name
    assert [key.number for key in keys] == list(range(len(keys)))
    assert [key.group * THIRD for key in keys] == [key.scheduled_s for key in keys]
    shown = {slot: index for window in windows for slot, index in zip(_slots(window), _shown(window), strict=True)}
    for key, clip in zip(keys, clips, strict=True):
        first = 4 * key.group - 17
        if key.time_s == key.scheduled_s:  # else the clip is moved to the frame, by less than a frame
            assert [shown[slot] for slot in range(first, first + 36)] == _shown(clip)


def test_the_start_and_the_end_repeat():
    _, windows, _ = _windows([Fraction(index, 24) for index in range(24)], interval_s=Fraction(1, 24))
    assert _shown(windows[0])[:25] == [0] * 25  # 17 before the key frame, 8 of the margin
    assert _shown(windows[-1])[-12:] == [23] * 12
    assert [key.scheduled_s for window in windows for key in window.keys] == [0, THIRD, 2 * THIRD]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_videos_shorter_than_a_clip(count):
    _, windows, _ = _windows([Fraction(index, 25) for index in range(count)])
    assert [key.number for window in windows for key in window.keys] == [0]
    assert {index for window in windows for index in _shown(window)} <= set(range(count))
    assert _shown(windows[-1])[-1] == count - 1


@pytest.mark.parametrize("seed", range(10))
def test_gaps_in_the_timestamps(seed):
    chooser = random.Random(seed)
    times, now = [], Fraction(0)
    while now < 8:
        times.append(now)
        now += Fraction(chooser.choice([1, 2, 3, 5, 8, 200, 3000]), 1000) + Fraction(1, 100)
    _, windows, _ = _windows(times, interval_s=Fraction(1, 30))
    for window in windows:
        for slot, index in zip(_slots(window), _shown(window), strict=True):
            assert index == max((i for i, t in enumerate(times) if t <= Fraction(slot, 12)), default=0)


def test_timestamps_rounded_to_milliseconds_are_the_same_with_slack():
    rate = Fraction(24)
    times = [Fraction(round(1000 * index / rate), 1000) for index in range(150)]
    rounded = _windows(times, interval_s=1 / rate, slack_s=Fraction(1, 1000))[1]
    exact = _windows([index / rate for index in range(150)], interval_s=1 / rate)[1]
    assert [_shown(window) for window in rounded] == [_shown(window) for window in exact]
    assert [key.frame for w in rounded for key in w.keys] == [key.frame for w in exact for key in w.keys]


def test_only_frames_that_are_shown_are_converted_and_once():
    _, _, converted = _windows([Fraction(index, 48) for index in range(48 * 3)])
    assert converted == [*range(0, 48 * 3, 4), 143]  # the last is shown after the end


def test_a_clip_is_ready_when_its_last_frame_is_there(monkeypatch):
    """Not when its window is: what a key frame waits for the window is lag."""
    now: list[int] = []
    monkeypatch.setattr(feature_windows, "time", SimpleNamespace(monotonic=lambda: now[-1]))
    plan = WindowPlan.of(CONFIG, every_s=THIRD, margin=2)
    buffer = WindowBuffer(config=CONFIG, plan=plan, interval_s=Fraction(1, 12))
    waits_frames = []
    for index in range(12 * 8):
        now.append(index)
        for window in buffer.add(_frame(index, Fraction(index, 12), [])):
            waits_frames += [index - key.ready_at_s for key in window.keys]
    # A window ends 2 to 6 groups of 4 frames after the clips that it completes.
    assert set(waits_frames) == {8, 12, 16, 20, 24}


@pytest.mark.parametrize(
    ("every_s", "said"),
    [
        (None, "`every_s` frame with `reuse_backbone`, which needs a multiple of 1/3 s; give 1/3"),
        (Fraction(1, 2), "`every_s` is 0.5; with `reuse_backbone` it is a multiple of 1/3 s.*: give 1/3 or 2/3$"),
        (Fraction(1, 5), ": give 1/3$"),
        (Fraction(5, 3), "a backbone call gives 5/3 s of features, so that none is shared; give `every_s` 4/3 at most"),
        (Fraction(3), "`every_s` 3 with `reuse_backbone`: .* none is shared"),
    ],
)
def test_key_frames_that_share_nothing(every_s, said):
    with pytest.raises(StepError, match=said) as caught:
        WindowPlan.of(CONFIG, every_s=every_s, margin=2)
    assert "\n" not in str(caught.value)


def test_clips_too_short_for_the_margin():
    with pytest.raises(StepError, match="a backbone call gives 0 s of features, .* run without it"):
        WindowPlan.of(StepConfig(chunks=(1,)), every_s=THIRD, margin=2)


def test_other_clip_lengths():
    """Two feature frames a chunk: 8 frames, 3 before the key frame."""
    config = StepConfig(image_size_px=32, chunk_frames=2, chunks=(1,))
    _, windows, _ = _windows([Fraction(index, 12) for index in range(36)], margin=0, config=config)
    for window in windows:
        assert _shown(window) == [min(max(slot, 0), 35) for slot in _slots(window, config)]


def test_most_windows_of_a_clip():
    for groups, margin in [(9, 0), (9, 1), (9, 2), (9, 3), (3, 0), (3, 1)]:
        plan = WindowPlan(groups=groups, margin=margin, key_groups=1)
        used = [len({group // plan.advance for group in range(first, first + groups)}) for first in range(plan.advance)]
        assert plan.windows_a_clip == max(used)
