"""What is said of a trace: stages, overlap, the critical path, the file."""

import json

import pytest
from step_runtime.tracing.chrome_trace import write_trace
from step_runtime.tracing.summary import OTHER, critical_path, summarize
from step_runtime.tracing.tables import trace_lines
from step_runtime.tracing.tracer import Span

MS = 1_000_000


def _span(lane, name, start_ms, end_ms, waits_for=None):
    return Span(name, lane, start_ms * MS, end_ms * MS, waits_for)


# The reader takes 10 ms a clip, the model 30 ms; room for one clip; writing takes 5 ms.
PIPELINE = [
    _span("reader", "decode", 0, 10),
    _span("inference", "wait for a clip", 0, 10, "reader"),
    _span("reader", "decode", 10, 20),
    _span("inference", "fused", 10, 40),
    _span("reader", "wait for room", 20, 40, "inference"),
    _span("writer", "wait for a result", 0, 40, "inference"),
    _span("writer", "encode", 40, 45),
    _span("inference", "fused", 41, 70),
    _span("writer", "wait for a result", 45, 70, "inference"),
    _span("inference", "wait for the writer", 70, 75, "writer"),
    _span("writer", "encode", 70, 75),
]


def test_the_critical_path_of_a_pipeline():
    """Decode the first clip, compute both, write the last; the millisecond between the two is the model thread's."""
    assert critical_path(PIPELINE) == {
        ("reader", "decode"): 10 * MS,
        ("inference", "fused"): 59 * MS,
        ("inference", OTHER): 1 * MS,
        ("writer", "encode"): 5 * MS,
    }


def test_a_summary():
    summary = summarize(list(reversed(PIPELINE)))
    assert summary.wall_s == 0.075
    assert summary.busy_s == {"reader": 0.02, "inference": 0.059, "writer": 0.01}
    # Two work from 10 to 20 and from 41 to 45 ms.
    assert summary.overlap_s == {0: 0.0, 1: 0.061, 2: 0.014, 3: 0.0}
    fused = next(stage for stage in summary.stages if stage.name == "fused")
    assert (fused.calls, fused.total_s, fused.critical_s) == (2, 0.059, 0.059)
    assert [stage.name for stage in summary.bounds] == ["fused", "decode", "encode", OTHER]
    assert sum(stage.critical_s for stage in summary.stages) == pytest.approx(summary.wall_s)
    busy, overlap, bound = trace_lines(summary)
    assert "inference 78.7 %" in busy
    assert "more than one worked in 18.7 % of it, none in 0.0 %" in overlap
    assert bound.startswith("bound by: inference 80.0 %, reader 13.3 %, writer 6.7 %; most by fused (inference) 78.7 %")


def test_two_that_wait_for_each_other():
    """One of them has what it waits for and was not woken yet: its wait is its own."""
    spans = [
        _span("inference", "fused", 0, 40),
        _span("reader", "wait for room", 10, 46, "inference"),
        _span("inference", "wait for a clip", 40, 45, "reader"),
        _span("inference", "fused", 45, 60),
    ]
    assert critical_path(spans) == {("inference", "fused"): 55 * MS, ("inference", "wait for a clip"): 5 * MS}


def test_a_gpu_that_does_nothing_waits_for_the_host():
    spans = [
        _span("inference", "to page-locked", 0, 4),
        _span("GPU upload", "upload", 4, 6),
        _span("GPU", "fused", 6, 16),
        _span("inference", "wait for the GPU", 5, 16, "GPU"),
        _span("inference", "to page-locked", 17, 20),
        _span("GPU upload", "upload", 20, 22),
        _span("GPU", "fused", 22, 32),
        _span("inference", "wait for the GPU", 21, 32, "GPU"),
    ]
    assert critical_path(spans) == {
        ("GPU", "fused"): 20 * MS,
        ("GPU upload", "upload"): 4 * MS,
        ("inference", "to page-locked"): 7 * MS,
        ("inference", OTHER): 1 * MS,
    }


def test_a_wait_for_what_nobody_records_is_itself_on_the_path():
    spans = [_span("reader", "wait for a frame", 0, 40, "source"), _span("reader", "resize", 40, 41)]
    assert critical_path(spans) == {("reader", "wait for a frame"): 40 * MS, ("reader", "resize"): 1 * MS}


def test_the_file_is_chromes_format(tmp_path):
    write_trace(tmp_path / "trace.json", PIPELINE, about={"model": "m"})
    content = json.loads((tmp_path / "trace.json").read_text())
    events = content["traceEvents"]
    threads = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert list(threads.values()) == ["reader", "inference", "writer"]
    assert {event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"} == set(threads)
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == len(PIPELINE)
    assert [event["ts"] for event in complete] == sorted(event["ts"] for event in complete)
    last = complete[-2]
    assert (threads[last["tid"]], last["ts"], last["dur"]) == ("inference", 70_000.0, 5_000.0)
    assert (last["cat"], last["args"]) == ("wait", {"waits for": "writer"})
    assert {event["pid"] for event in events} == {1}
    assert content["otherData"] == {"model": "m"}
