"""Spans as a file that Perfetto and chrome://tracing show.

Source: Trace Event Format, "Complete Events" and "Metadata Events"
(https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from step.files.atomic import atomic_path
from step_runtime.tracing.tracer import Span, lane_rank

_PROCESS = 1


def write_trace(path: Path, spans: Sequence[Span], *, about: dict[str, str]) -> None:
    """Writes Chrome's trace event format, atomically; times are from the first span on.

    Args:
        path: the JSON file.
        spans: of any order.
        about: what else the file says of the run.

    Raises:
        StepError: it cannot be written.
    """
    origin_ns = min((span.start_ns for span in spans), default=0)
    lanes = sorted({span.lane for span in spans}, key=lane_rank)
    numbers = {lane: number for number, lane in enumerate(lanes, start=1)}
    events: list[dict[str, Any]] = [_metadata("process_name", 0, name="step-run")]
    for lane, number in numbers.items():
        events.append(_metadata("thread_name", number, name=lane))
        events.append(_metadata("thread_sort_index", number, sort_index=number))
    events += [_event(span, numbers[span.lane], origin_ns) for span in sorted(spans, key=lambda span: span.start_ns)]
    content = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}
    with atomic_path(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        json.dump(content, file)


def _metadata(kind: str, thread: int, **arguments: str | int) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": _PROCESS, "tid": thread, "args": arguments}


def _event(span: Span, thread: int, origin_ns: int) -> dict[str, Any]:
    event: dict[str, Any] = {
        "ph": "X",
        "name": span.name,
        "cat": "work" if span.waits_for is None else "wait",
        "ts": (span.start_ns - origin_ns) / 1e3,  # microseconds
        "dur": span.duration_ns / 1e3,
        "pid": _PROCESS,
        "tid": thread,
    }
    return event if span.waits_for is None else event | {"args": {"waits for": span.waits_for}}
