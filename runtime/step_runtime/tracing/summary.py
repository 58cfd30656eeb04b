"""What a trace says: how long each stage takes, who works at the same time, and what the run's length is made of.

The critical path is found backwards from the end: where a lane worked, its work is on the path; where it waited for
another lane, the path goes on there. Every moment of the run is on the path once, so that halving a stage's share of it
is about what a run can gain by making that stage twice as fast (until another one bounds it).
"""

import bisect
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from step_runtime.tracing.tracer import GPU, GPU_UPLOAD, Span, lane_rank

_HAND_OVER_NS = 200_000  # a wait this short is the hand-over itself: the item was there
_DEVICE_LANES = (GPU, GPU_UPLOAD)
OTHER = "other"
"""What a lane did between its spans."""


@dataclass(frozen=True)
class Stage:
    """All spans of one name in one lane.

    Attributes:
        lane, name: which.
        is_wait: it was waiting, not work.
        calls: how many.
        total_s: their sum.
        critical_s: of the run's length; see the module.
    """

    lane: str
    name: str
    is_wait: bool
    calls: int
    total_s: float
    critical_s: float


@dataclass(frozen=True)
class TraceSummary:
    """What the spans of one run say.

    Attributes:
        wall_s: from the first span's start to the last one's end.
        stages: lane by lane, each lane's in the order in which they first happened.
        busy_s: seconds of work, by lane.
        overlap_s: seconds in which so many lanes worked at once; 0 to the number of lanes.
    """

    wall_s: float
    stages: tuple[Stage, ...]
    busy_s: dict[str, float]
    overlap_s: dict[int, float]

    @property
    def several_share(self) -> float:
        """Share of the run in which more than one lane worked."""
        return sum(time_s for lanes, time_s in self.overlap_s.items() if lanes > 1) / max(self.wall_s, 1e-9)

    @property
    def bounds(self) -> list[Stage]:
        """Stages on the critical path, the longest first."""
        return sorted((stage for stage in self.stages if stage.critical_s > 0), key=lambda stage: -stage.critical_s)


@dataclass
class _Lane:
    """A lane's spans in order of time, for the way back."""

    spans: list[Span] = field(default_factory=list)
    starts_ns: list[int] = field(default_factory=list)

    def before(self, time_ns: int) -> Span | None:
        """The last span that starts before a moment."""
        index = bisect.bisect_left(self.starts_ns, time_ns) - 1
        return self.spans[index] if index >= 0 else None


def summarize(spans: Sequence[Span]) -> TraceSummary:
    """The summary of a run's spans, of which those of one lane do not overlap.

    Args:
        spans: in any order; at least one.
    """
    ordered = sorted(spans, key=lambda span: span.start_ns)
    start_ns, end_ns = ordered[0].start_ns, max(span.end_ns for span in ordered)
    work: dict[str, list[Span]] = {lane: [] for lane in sorted({span.lane for span in spans}, key=lane_rank)}
    totals: dict[tuple[str, str, bool], list[int]] = {}
    for span in ordered:
        if span.waits_for is None:
            work[span.lane].append(span)
        totals.setdefault((span.lane, span.name, span.waits_for is not None), []).append(span.duration_ns)
    critical_ns = critical_path(ordered)
    for lane_name, name in critical_ns:
        if name == OTHER:
            totals[lane_name, OTHER, False] = []
    lanes = list(work)
    stages = [
        Stage(lane, name, is_wait, len(times_ns), sum(times_ns) / 1e9, critical_ns.get((lane, name), 0) / 1e9)
        for (lane, name, is_wait), times_ns in totals.items()
    ]
    return TraceSummary(
        wall_s=(end_ns - start_ns) / 1e9,
        stages=tuple(sorted(stages, key=lambda stage: (lanes.index(stage.lane), stage.name == OTHER))),
        busy_s={lane: sum(span.duration_ns for span in found) / 1e9 for lane, found in work.items()},
        overlap_s=_overlap_s(work, start_ns, end_ns),
    )


def critical_path(spans: Sequence[Span]) -> dict[tuple[str, str], int]:
    """Nanoseconds of the run's length by (lane, stage); they add up to the whole.

    Args:
        spans: in any order; at least one.
    """
    lanes: dict[str, _Lane] = defaultdict(_Lane)
    for span in sorted(spans, key=lambda span: span.start_ns):
        if span.waits_for is None or span.duration_ns >= _HAND_OVER_NS:
            lanes[span.lane].spans.append(span)
            lanes[span.lane].starts_ns.append(span.start_ns)
    found: dict[tuple[str, str], int] = defaultdict(int)
    begin_ns = min(span.start_ns for span in spans)
    last = max(spans, key=lambda span: span.end_ns)
    name, now_ns = last.lane, last.end_ns
    chain: dict[str, Span | None] = {}  # who waits for whom at this very moment
    while now_ns > begin_ns:
        here = lanes[name].before(now_ns)
        chain[name] = here
        if here is not None and here.end_ns >= now_ns:
            if here.waits_for in lanes:
                if here.waits_for not in chain:
                    name = here.waits_for
                    continue
                # A circle: one of them has what it waits for, and only has not gone on yet. That is the shortest wait.
                name, here = max(((n, s) for n, s in chain.items() if s is not None), key=lambda item: item[1].start_ns)
            stage, until_ns = here.name, here.start_ns
        else:
            worker = _latest_worker(lanes, now_ns, chain) if name in _DEVICE_LANES else None
            if worker is not None:  # a device that does nothing waits for whoever worked last
                name = worker
                continue
            stage, until_ns = OTHER, begin_ns if here is None else here.end_ns
        found[name, stage] += now_ns - until_ns
        now_ns = until_ns
        chain.clear()
    return dict(found)


def _latest_worker(lanes: dict[str, _Lane], time_ns: int, without: Container[str]) -> str | None:
    """The lane that works at a moment, or worked last before it."""
    latest: tuple[int, str] | None = None
    for name, lane in lanes.items():
        span = lane.before(time_ns)
        if name not in without and span is not None and span.waits_for is None:
            latest = max(latest or (0, ""), (min(span.end_ns, time_ns), name))
    return None if latest is None else latest[1]


def _overlap_s(work: dict[str, list[Span]], start_ns: int, end_ns: int) -> dict[int, float]:
    changes = sorted(
        change for spans in work.values() for span in spans for change in ((span.start_ns, 1), (span.end_ns, -1))
    )
    found = dict.fromkeys(range(len(work) + 1), 0)
    busy, since_ns = 0, start_ns
    for time_ns, change in changes:
        found[busy] += time_ns - since_ns
        busy, since_ns = busy + change, time_ns
    found[busy] += end_ns - since_ns
    return {lanes: time_ns / 1e9 for lanes, time_ns in found.items()}
