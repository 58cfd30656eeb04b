"""Times of work on a GPU, or of the same work on the CPU where there is none."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gpu_check.stage import Device
from step.errors import StepError

_FLUSH_BYTES = 1 << 28  # several times the L2 cache of any GPU


def need_cuda(device: Device) -> None:
    """Raises:
    StepError: work is to be done on a GPU, and PyTorch sees none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise StepError("PyTorch sees no CUDA device")


@dataclass(frozen=True)
class Times:
    """Holds the times of repeated work, in milliseconds.

    Attributes:
        median_ms: the middle one.
        low_ms, high_ms: the 10th and the 90th in a hundred.
    """

    median_ms: float
    low_ms: float
    high_ms: float


class Timer:
    """Times calls that put work on PyTorch's current stream.

    Args:
        device: where the work is done.
        flush: whether everything else is pushed out of the GPU's caches before each call.
    """

    def __init__(self, device: Device, *, flush: bool = False) -> None:
        self._is_cuda = device == "cuda"
        self._old_data = (
            torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda") if flush and self._is_cuda else None
        )

    def time(self, work: Callable[[], object], *, runs: int, warm_up: int = 3) -> Times:
        """Calls `work` `warm_up` and then `runs` times.

        Each call is timed by itself with CUDA events, on a CPU with the clock; the host waits once, after all of them.
        """
        for _ in range(warm_up):
            work()
        times_ms = self._gpu_times(work, runs) if self._is_cuda else self._cpu_times(work, runs)
        ordered = sorted(times_ms)
        low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
        return Times(statistics.median(ordered), low, high)

    def _gpu_times(self, work: Callable[[], object], runs: int) -> list[float]:
        events = [[_event() for _ in range(2)] for _ in range(runs)]
        torch.cuda.synchronize()
        for start, end in events:
            if self._old_data is not None:
                self._old_data.zero_()
            start.record()
            work()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    @staticmethod
    def _cpu_times(work: Callable[[], object], runs: int) -> list[float]:
        times_ms = []
        for _ in range(runs):
            start_s = time.perf_counter()
            work()
            times_ms.append(1e3 * (time.perf_counter() - start_s))
        return times_ms


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def captured(work: Callable[[], object], device: Device) -> Callable[[], object]:
    """Records the work as one CUDA graph, which takes the host's launches out of its time; on a CPU it stays as it is.

    Args:
        work: was called before, so that nothing is compiled or allocated for the first time.
        device: where the work is done.

    Raises:
        RuntimeError: the work does what cannot be captured.
    """
    if device == "none":
        return work
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
