"""What a run says at its end."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from step_runtime.outputs.run_summary import RunSummary, Seen, detail_lines, summary_lines

from step import StepConfig

FILES = ("detections.jsonl", "overlay.mp4", "run.json")


class _Person:
    def __init__(self, *actions: int) -> None:
        self.actions = tuple((label, 0.5) for label in actions)


@pytest.fixture
def summary() -> RunSummary:
    made = RunSummary("lobby", files=FILES, key_frames=8, elapsed_s=2.0)
    made.state.decoded_s = Fraction(4)
    return made


def _lines(summary: RunSummary) -> list[str]:
    return list(summary_lines(summary, config=StepConfig(), what_ran="toy, cpu", folder=Path("runs/lobby")))


def test_people_are_counted_by_key_frame():
    seen = Seen()
    for people in ([_Person(12, 14), _Person(12)], [], [_Person(14)]):
        seen.add(people)
    assert (seen.boxes, seen.most_at_once, seen.key_frames) == (3, 2, 2)
    assert seen.actions == Counter({12: 1, 14: 2})  # two who stand are one key frame in which somebody stands


def test_it_answers(summary):
    summary.seen = Seen(boxes=9, most_at_once=2, key_frames=6, actions=Counter({12: 6, 14: 3}))
    assert _lines(summary) == [
        "lobby: 8 key frames of 4.0 s of video in 2.0 s, 2.0 x real time (toy, cpu)",
        "people: up to 2 at a time, at 6 of 8 key frames",
        "  stand     3.0 s",
        "  walk      1.5 s",
        "results: runs/lobby/overlay.mp4, detections.jsonl, run.json",
    ]
    assert len(list(detail_lines(summary))) == 3


def test_nobody_and_losses(summary):
    summary.dropped_frames, summary.reconnects, summary.state.dropped_clips = 1, 2, 3
    lines = _lines(summary)
    assert lines[1] == "dropped, because they came faster than they were computed: 3 clips and 1 frame"
    assert lines[2] == "connection: made again 2 times"
    assert lines[3].startswith("people: none above the score threshold")


def test_many_actions(summary):
    summary.seen = Seen(boxes=9, most_at_once=1, key_frames=1, actions=Counter(range(1, 11)))
    lines = _lines(summary)
    assert lines[1] == "people: one at a time, at 1 of 8 key frames"
    assert lines[-2] == "  and 2 other actions"
