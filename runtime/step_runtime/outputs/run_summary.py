"""What a run did: counted while it goes on, said in words at its end."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from step.config import StepConfig
from step_runtime.clips.run_state import RunState
from step_runtime.people.person import Person

_ACTIONS_SHOWN = 8


@dataclass
class Seen:
    """What the key frames showed above the score threshold.

    Attributes:
        boxes: people, counted again at every key frame.
        most_at_once: the most at one key frame.
        key_frames: those with anybody in them.
        actions: class id -> key frames at which somebody does it.
    """

    boxes: int = 0
    most_at_once: int = 0
    key_frames: int = 0
    actions: Counter[int] = field(default_factory=Counter)

    def add(self, people: Sequence[Person]) -> None:
        """Counts one key frame."""
        self.boxes += len(people)
        self.most_at_once = max(self.most_at_once, len(people))
        self.key_frames += bool(people)
        self.actions.update({label for person in people for label, _ in person.actions})


@dataclass
class RunSummary:
    """What a run did.

    Attributes:
        video: name of the source.
        files: names of what was written.
        key_frames: how many were detected on.
        seen: what they showed.
        worst_lag_s: longest wait from a clip being complete to its detections.
        elapsed_s: wall time.
        dropped_frames: of a live source, how many were not taken in time.
        reconnects: of a live source, how often it was connected to again.
        state: counters of the run.
        interrupted: stopped with Ctrl-C; what was done until then is kept.
    """

    video: str
    files: tuple[str, ...] = ()
    key_frames: int = 0
    seen: Seen = field(default_factory=Seen)
    worst_lag_s: float = 0.0
    elapsed_s: float = 0.0
    dropped_frames: int = 0
    reconnects: int = 0
    state: RunState = field(default_factory=RunState)
    interrupted: bool = False


def summary_lines(summary: RunSummary, *, config: StepConfig, what_ran: str, folder: Path) -> Iterator[str]:
    """Says how fast it was, who was seen doing what for how long, and where the files are.

    Args:
        summary: of a run with at least one key frame.
        config: of the model; it has the names of the actions.
        what_ran: the model and its backend.
        folder: where the files are.
    """
    video_s = float(summary.state.decoded_s)
    speed = f", {video_s / summary.elapsed_s:.1f} x real time" if summary.elapsed_s > 0 else ""
    yield (
        f"{summary.video}: {_counted(summary.key_frames, 'key frame')} of {video_s:.1f} s of video in "
        f"{summary.elapsed_s:.1f} s{speed} ({what_ran})"
    )
    yield from _losses(summary)
    seen = summary.seen
    if not seen.key_frames:
        yield "people: none above the score threshold; a lower --score-threshold shows less certain ones"
    else:
        at_once = "one at a time" if seen.most_at_once == 1 else f"up to {seen.most_at_once} at a time"
        yield f"people: {at_once}, at {seen.key_frames} of {_counted(summary.key_frames, 'key frame')}"
        shown = seconds_by_action(summary, config)[:_ACTIONS_SHOWN]
        width = max(len(name) for name, _ in shown)
        for name, seconds in shown:
            yield f"  {name:<{width}}  {seconds:6.1f} s"
        if len(seen.actions) > len(shown):
            yield f"  and {_counted(len(seen.actions) - len(shown), 'other action')}"
    first, *others = sorted(summary.files, key=lambda name: name != "overlay.mp4")  # what people look at first
    yield f"results: {', '.join((str(folder / first), *others))}"


def seconds_by_action(summary: RunSummary, config: StepConfig) -> list[tuple[str, float]]:
    """For how many seconds of video somebody did each action, by its name; the longest comes first.

    Args:
        summary: of a run with at least one key frame.
        config: of the model; it has the names of the actions.
    """
    video_s = float(summary.state.decoded_s)
    return [
        (config.class_name(label), count / summary.key_frames * video_s)
        for label, count in summary.seen.actions.most_common()
    ]


def detail_lines(summary: RunSummary) -> Iterator[str]:
    """Says what threads and clips took, for those who ask."""
    state = summary.state
    yield f"inference: {state.inference_s / summary.key_frames:.3f} s a clip"
    decoded_s = max(float(state.decoded_s), 1e-3)
    yield (f"reader thread: {state.host_s / decoded_s:.3f} core-seconds a second of video, decoder threads not counted")
    yield f"lag: {summary.worst_lag_s:.1f} s at worst"


def _losses(summary: RunSummary) -> Iterator[str]:
    dropped = [
        _counted(count, what)
        for count, what in ((summary.state.dropped_clips, "clip"), (summary.dropped_frames, "frame"))
        if count
    ]
    if dropped:
        yield f"dropped, because they came faster than they were computed: {' and '.join(dropped)}"
    if summary.reconnects:
        yield f"connection: made again {summary.reconnects} times"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
