"""Which frames a clip shows, against SPEC's rule on indices."""

import random
from fractions import Fraction

import numpy as np
import pytest
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.sources.base import SourceFrame

from step import StepConfig
from step.clips import clip_frame_indices

CONFIG = StepConfig(image_size_px=32)


def _frame(index: int, time_s: Fraction, converted: list[int]) -> SourceFrame:
    """Two channels of every pixel spell the index."""

    def rgb() -> np.ndarray:
        converted.append(index)
        pixels = np.zeros((8, 12, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = divmod(index, 256)
        return pixels

    return SourceFrame(time_s=time_s, index=index, width_px=12, height_px=8, rgb=rgb)


def _clips(times: list[Fraction], every_s: Fraction | None, interval_s: Fraction, slack_s: Fraction = Fraction(0)):
    converted: list[int] = []
    buffer = ClipBuffer(config=CONFIG, every_s=every_s, interval_s=interval_s, slack_s=slack_s)
    clips, most_held = [], 0
    for index, time_s in enumerate(times):
        clips += buffer.add(_frame(index, time_s, converted))
        most_held = max(most_held, len(buffer._held))
    clips += buffer.finish()
    return clips, converted, most_held


def _shown(clip) -> list[int]:
    first = clip.frames[:, 0, 0].astype(int)
    return (first[:, 0] * 256 + first[:, 1]).tolist()


RATES = [Fraction(12), Fraction(24), Fraction(25), Fraction(28), Fraction(30000, 1001), Fraction(60), Fraction(5)]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("every_s", [Fraction(1), Fraction(1, 3), Fraction(4), None])
def test_constant_rate_is_the_index_rule(rate, every_s):
    count = int(6 * rate)
    times = [index / rate for index in range(count)]
    clips, _, _ = _clips(times, every_s, 1 / rate)
    if every_s is None:
        keys = list(range(count))
    else:
        keys = [int(n * every_s * rate) for n in range(100) if n * every_s < count / rate]
    assert [clip.frame for clip in clips] == keys
    for clip in clips:
        expected = clip_frame_indices(clip.frame, source_fps=rate, num_frames=count, clip_frames=36)
        assert _shown(clip) == expected
        assert clip.time_s == times[clip.frame]


def test_timestamps_rounded_to_milliseconds_are_the_same_with_slack():
    rate = Fraction(24)
    times = [Fraction(round(1000 * index / rate), 1000) for index in range(150)]
    clips, _, _ = _clips(times, Fraction(1), 1 / rate, Fraction(1, 1000))
    for clip in clips:
        assert _shown(clip) == clip_frame_indices(clip.frame, source_fps=rate, num_frames=150, clip_frames=36)


@pytest.mark.parametrize("seed", range(20))
def test_variable_rate_shows_the_frame_on_display(seed):
    chooser = random.Random(seed)
    times, now = [], Fraction(0)
    while now < 12:
        times.append(now)
        now += Fraction(chooser.choice([1, 2, 3, 5, 8, 200, 3000]), 1000) + Fraction(1, 100)
    every_s = Fraction(chooser.choice([1, 2, 5, 7]), chooser.choice([1, 2]))
    clips, _, _ = _clips(times, every_s, Fraction(1, 30))
    assert clips
    for clip in clips:
        assert clip.frame == max(i for i, t in enumerate(times) if t <= clip.scheduled_s)
        for position, index in enumerate(_shown(clip)):
            wanted = clip.time_s + Fraction(position - 17, 12)
            assert index == max((i for i, t in enumerate(times) if t <= wanted), default=0)


def test_each_frame_is_converted_once():
    rate = Fraction(30)
    _, converted, _ = _clips([i / rate for i in range(30 * 20)], Fraction(1, 2), 1 / rate)
    assert converted == list(range(30 * 20))


@pytest.mark.parametrize("every_s", [Fraction(1), Fraction(30), None])
def test_the_buffer_stays_small(every_s):
    rate = Fraction(30)
    _, _, most_held = _clips([i / rate for i in range(30 * 90)], every_s, 1 / rate)
    assert most_held <= 4.2 * rate


@pytest.mark.parametrize("count", [1, 2, 7])
def test_videos_shorter_than_a_clip(count):
    clips, _, _ = _clips([Fraction(i, 25) for i in range(count)], Fraction(1), Fraction(1, 25))
    assert len(clips) == 1
    assert set(_shown(clips[0])) <= set(range(count))
    assert _shown(clips[0])[:18] == [0] * 18
    assert _shown(clips[0])[-1] == count - 1


def test_key_frames_closer_than_frames_are_every_frame():
    times = [Fraction(i, 25) for i in range(10)]
    clips, _, _ = _clips(times, Fraction(1, 1000), Fraction(1, 25))
    assert [clip.frame for clip in clips] == list(range(10))
