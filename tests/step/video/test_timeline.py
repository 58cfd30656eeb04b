"""The rule of time: sequences of stamps whose right times are known by how they were made."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from step.video.timeline import LONGEST_STEP_S, Timeline

INTERVAL_S = Fraction(1, 25)
WRAP_S = Fraction(2**33, 90000)


def place(stamps, *, wrap_s=None, zero_s=None):
    timeline = Timeline(INTERVAL_S, wrap_s=wrap_s, zero_s=zero_s)
    placed = []
    for number, stamp_s in enumerate(stamps):
        placed += timeline.add(number, None if stamp_s is None else Fraction(stamp_s))
    placed += timeline.finish()
    assert [one.item for one in placed] == list(range(len(stamps)))
    times = [one.time_s for one in placed]
    assert all(before < after for before, after in pairwise(times))
    return times, [one.jump is not None for one in placed], timeline


def regular(count, start_s=Fraction(0)):
    return [start_s + number * INTERVAL_S for number in range(count)]


# Steps as recordings have them: jitter, drops, variable rates; all of them follow.
STEPS = st.lists(st.integers(1, 89_999), min_size=8, max_size=60)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, start=st.integers(-(10**10), 10**10))
def test_what_follows_is_kept_exactly(steps, start):
    stamps = [Fraction(start, 90000)]
    for step in steps:
        stamps.append(stamps[-1] + Fraction(step, 90000))
    times, jumps, timeline = place(stamps)
    assert times == [stamp_s - stamps[0] for stamp_s in stamps]
    assert not any(jumps)
    assert (timeline.zero_s, timeline.outliers) == (stamps[0], 0)


@settings(max_examples=300, deadline=None)
@given(
    at=st.integers(0, 39),
    wrong=st.one_of(
        st.none(),
        st.integers(-(10**9), 10**9).map(lambda ticks: Fraction(ticks, 90000)),
        st.integers(-39, 39).map(lambda number: number * INTERVAL_S),  # equal to another frame's
    ),
)
def test_a_single_outlier_changes_nothing_else(at, wrong):
    stamps = regular(40)
    right = list(stamps)
    stamps[at] = wrong if wrong is None else right[at] + wrong
    times, jumps, _ = place(stamps)
    is_lone_gap = wrong is not None and at == 39 and LONGEST_STEP_S < stamps[at] - right[38] <= 10
    is_lone_gap = is_lone_gap or (wrong is not None and at == 0 and -10 <= wrong < -LONGEST_STEP_S + INTERVAL_S)
    if is_lone_gap or at == 0 or (wrong is not None and right[at - 1] < stamps[at] <= right[at - 1] + LONGEST_STEP_S):
        return  # nothing tells it from a right one
    assert not any(jumps)
    assert times[:at] + times[at + 1 :] == right[:at] + right[at + 1 :]
    assert times[at] == right[at]


@pytest.mark.parametrize("at", [0, 1, 17, 37, 39])
@pytest.mark.parametrize("by_s", [100, -100])
def test_a_frame_stamped_far_away(at, by_s):
    stamps = regular(40, Fraction(7))
    stamps[at] += by_s
    times, jumps, timeline = place(stamps)
    assert times == regular(40)
    assert not any(jumps)
    assert timeline.outliers == 1


@settings(max_examples=200, deadline=None)
@given(before=st.integers(5, 30), after=st.integers(5, 30), by=st.integers(-(10**8), 10**8))
def test_a_jump_begins_a_segment(before, after, by):
    by_s = Fraction(by, 90000)
    first = regular(before)
    second = regular(after, first[-1] + by_s)
    times, jumps, _ = place(first + second)
    if 0 < by_s <= LONGEST_STEP_S:
        assert times == first + second
    elif by_s > 0:
        assert times == first + second  # the gap is time
        assert jumps == [False] * before + [True] + [False] * (after - 1)
    elif second[-1] <= first[-1]:
        assert times == regular(before + after)  # time goes on
        assert jumps == [False] * before + [True] + [False] * (after - 1)


@pytest.mark.parametrize("copies", [2, 3])
def test_equal_stamps_push_nothing_away(copies):
    stamps = [stamp_s for number, stamp_s in enumerate(regular(30)) for _ in range(copies if number % 10 == 5 else 1)]
    times, jumps, _ = place(stamps)
    assert not any(jumps)
    assert times[-1] == 29 * INTERVAL_S
    assert max(abs(a - b) for a, b in zip(times, stamps, strict=True)) < INTERVAL_S


@pytest.mark.parametrize("step", [Fraction(51, 25), Fraction(31, 25), Fraction(12), Fraction(3600)])
@pytest.mark.parametrize("quick", [0, 3, 75])
def test_frames_far_apart_are_timed_as_stamped(step, quick):
    """Time-lapse, whatever rate the file states: each gap is time."""
    first = regular(quick)
    stamps = first + [(first[-1] if first else -step) + step * number for number in range(1, 60)]
    times, jumps, timeline = place(stamps)
    assert times == stamps
    assert timeline.outliers == 0
    assert sum(jumps) == len(stamps) - max(quick, 1)


@pytest.mark.parametrize("at", [1, 20, 30, 58])
@pytest.mark.parametrize("wrong", [None, Fraction(-1000), Fraction(1000)])
def test_an_outlier_among_frames_far_apart(at, wrong):
    stamps = [Fraction(number * 2) for number in range(60)]
    right = list(stamps)
    stamps[at] = wrong if wrong is None else right[at] + wrong
    assert place(stamps)[0] == right


@pytest.mark.parametrize("of", [1, 2, 3])
@pytest.mark.parametrize("apart", [2, 5, 20])
def test_bursts_are_timed_as_stamped(of, apart):
    stamps = [apart * burst + number * INTERVAL_S for burst in range(50) for number in range(of)]
    times, jumps, timeline = place(stamps)
    assert times == stamps
    assert (sum(jumps), timeline.outliers) == (49, 0)


@pytest.mark.parametrize("at", [1, 5, 17, 26])
@pytest.mark.parametrize("by_s", [Fraction(3, 10), Fraction(9, 10)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_frames_stamped_a_little_ahead(at, by_s, count):
    stamps = regular(30)
    stamps[at : at + count] = [stamp_s + by_s for stamp_s in stamps[at : at + count]]
    times, jumps, timeline = place(stamps)
    assert times == regular(30)
    assert (any(jumps), timeline.outliers) == (False, count)


@pytest.mark.parametrize("by_s", [-300, 300, -40_000, 40_000])
def test_a_reset_counter_is_no_counter_that_ran_over(by_s):
    """FFmpeg adds a counter's whole length to stamps before the first one."""
    stamps = regular(30, Fraction(400)) + [
        WRAP_S * (by_s < 0) + stamp_s for stamp_s in regular(30, 400 + Fraction(by_s))
    ]
    times, jumps, _ = place(stamps, wrap_s=WRAP_S)
    second = regular(30, 30 * INTERVAL_S if by_s < 0 else Fraction(by_s))
    assert times == regular(30) + second
    assert sum(jumps) == 1


def test_the_first_two_frames_stamped_far_ahead():
    stamps = [100 + stamp_s for stamp_s in regular(2)] + [WRAP_S + stamp_s for stamp_s in regular(30)[2:]]
    assert place(stamps, wrap_s=WRAP_S)[0] == regular(30)


def test_no_stamps_at_all():
    assert place([None] * 20)[0] == regular(20)


def test_some_stamps_are_missing():
    stamps = [stamp_s if number % 3 == 0 else None for number, stamp_s in enumerate(regular(31))]
    assert place(stamps)[0] == regular(31)


@pytest.mark.parametrize("turn", [3, 10, 37])
def test_a_counter_that_runs_over(turn):
    stamps = regular(40, WRAP_S - turn * INTERVAL_S)
    times, jumps, _ = place([stamp_s % WRAP_S for stamp_s in stamps], wrap_s=WRAP_S)
    assert times == regular(40)
    assert not any(jumps)


def test_three_outliers_in_a_row():
    stamps = regular(30)
    stamps[10:13] = [stamp_s + 50 for stamp_s in stamps[10:13]]
    times, jumps, timeline = place(stamps)
    assert times == regular(30)
    assert (any(jumps), timeline.outliers) == (False, 3)


def test_times_from_a_known_zero():
    """What was searched has the times of what was read on."""
    assert place(regular(20, Fraction(9)), zero_s=Fraction(4))[0] == regular(20, Fraction(5))


def test_frames_come_back_at_once_while_stamps_follow():
    timeline = Timeline(INTERVAL_S)
    assert timeline.add("a", Fraction(3)) == []  # the second one tells whether the first can be believed
    assert [one.item for one in timeline.add("b", Fraction(3) + INTERVAL_S)] == ["a", "b"]
    for number in range(2, 20):
        assert len(timeline.add("c", Fraction(3) + number * INTERVAL_S)) == 1


def test_chaos_still_grows():
    stamps = [Fraction(number * 7919 % 4001) for number in range(100)]
    times, _, _ = place(stamps)
    assert all(before < after for before, after in pairwise(times))
