"""What a process that measures a peak says at its end: a line of JSON."""

from step.bundles.records import Record

PEAK_WORKER = "step_runtime.benchmark.roofline.peak_worker"
"""The module that such a process runs."""


class PeakAnswer(Record):
    """A rate, or why there is none.

    Attributes:
        rate: multiply-adds, or bytes read and written, a second.
        size: rows of the square matrices, or bytes of what is copied.
        device: name of the GPU.
        problem: why nothing could be measured.
    """

    rate: float | None = None
    size: int | None = None
    device: str | None = None
    problem: str | None = None
