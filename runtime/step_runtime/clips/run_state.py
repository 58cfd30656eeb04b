"""What a run can be asked about while it goes on."""

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
