"""Whether the spans that a traced run tells of a GPU can be true, and how much of the uploads hid behind computing."""

import itertools
from collections.abc import Sequence

from step_runtime.tracing.tracer import GPU, GPU_UPLOAD, INFERENCE, Span

_EVENT_TOLERANCE_NS = 20_000  # between two events of the GPU, whose times are float32 milliseconds
_CLOCK_TOLERANCE_NS = 5_000_000
"""Between host and GPU: the one event that sets the clocks is seen when the host wakes up."""


def span_problems(spans: Sequence[Span], *, calls: int, stages: Sequence[str]) -> list[str]:
    """Says in words what is wrong.

    Args:
        spans: of a run on a GPU, every call of which was waited for.
        calls: how many there were.
        stages: names of the engines, or of what one CUDA graph has of them, in their order.
    """
    problems = []
    uploads, computing = _lane(spans, GPU_UPLOAD), _lane(spans, GPU)
    for lane in (uploads, computing):
        problems += [
            f"{after.name} begins {before.end_ns - after.start_ns} ns before {before.name} of its own stream ends"
            for before, after in itertools.pairwise(lane)
            if after.start_ns < before.end_ns - _EVENT_TOLERANCE_NS
        ]
        problems += [f"{span.name} ends before it begins" for span in lane if span.duration_ns < 0]
    order = ["copy", *stages, "download"]
    if [span.name for span in uploads] != ["upload"] * calls or [span.name for span in computing] != order * calls:
        seen = list(dict.fromkeys(span.name for span in (*uploads, *computing)))
        return [*problems, f"{calls} calls left {len(uploads)} uploads and {len(computing)} stages: {', '.join(seen)}"]
    host = [span for span in spans if span.lane == INFERENCE]
    staged = [span for span in host if span.name == "to page-locked"]
    waits = [span for span in host if span.waits_for == GPU]
    for index in range(calls):
        copy, download = (computing[index * len(order) + place] for place in (0, -1 + len(order)))
        upload = uploads[index]
        if copy.start_ns < upload.end_ns - _EVENT_TOLERANCE_NS:
            problems.append(f"call {index}: the copy begins {upload.end_ns - copy.start_ns} ns before its upload ends")
        if upload.start_ns < staged[index].end_ns - _CLOCK_TOLERANCE_NS:
            problems.append(f"call {index}: the upload begins before its frames lie in page-locked memory")
        if download.end_ns > waits[index].end_ns + _CLOCK_TOLERANCE_NS:
            problems.append(f"call {index}: the download ends after the host has seen its end")
    return problems


def clock_gap_us(spans: Sequence[Span]) -> float:
    """Returns the least time from a download's end to the host's seeing it; below 0 where the GPU's clock is late."""
    downloads = [span for span in _lane(spans, GPU) if span.name == "download"]
    waits = [span for span in spans if span.lane == INFERENCE and span.waits_for == GPU]
    return min(wait.end_ns - download.end_ns for download, wait in zip(downloads, waits, strict=True)) / 1e3


def hidden_share(spans: Sequence[Span]) -> float:
    """Returns which part of the uploads' time the compute stream worked, too, 0 to 1."""
    uploads, computing = _lane(spans, GPU_UPLOAD), _lane(spans, GPU)
    total_ns = sum(span.duration_ns for span in uploads)
    hidden_ns = sum(
        max(0, min(upload.end_ns, work.end_ns) - max(upload.start_ns, work.start_ns))
        for upload in uploads
        for work in computing
    )
    return hidden_ns / total_ns if total_ns else 0.0


def busy_share(spans: Sequence[Span]) -> float:
    """Returns which part of the time from its first to its last work the compute stream worked, 0 to 1."""
    computing = _lane(spans, GPU)
    wall_ns = max(span.end_ns for span in computing) - min(span.start_ns for span in computing)
    return sum(span.duration_ns for span in computing) / wall_ns if wall_ns else 0.0


def _lane(spans: Sequence[Span], lane: str) -> list[Span]:
    """Returns a lane's spans as they were reported, which is as they must follow one another."""
    return [span for span in spans if span.lane == lane]
