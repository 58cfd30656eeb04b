"""What a run can be asked about while it goes on."""

import contextlib
import time
from collections.abc import Iterator
from fractions import Fraction


class RunState:
    """What a run can be asked about while it goes on (progress bars, summaries)."""

    def __init__(self) -> None:
        self.decoded_s = Fraction(0)
        self.dropped_clips = 0
        self.host_s = 0.0  # CPU time of the reader thread: converting, resizing, buffering
        self.inference_s = 0.0
        self.problems: list[str] = []
        self.notes: list[str] = []  # what was chosen, skipped or bounded in reading, a line each

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Counts what the block takes as time of the model."""
        start_s = time.monotonic()
        yield
        self.inference_s += time.monotonic() - start_s
