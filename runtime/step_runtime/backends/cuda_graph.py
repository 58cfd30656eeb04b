"""Capturing what is put into a stream as a CUDA graph, which is then launched as one.

Source: https://docs.nvidia.com/cuda/cuda-c-programming-guide/ ("CUDA Graphs", "Creating a Graph Using Stream Capture").
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from step.errors import StepError
from step_runtime.backends.cuda import Cuda


@dataclass(frozen=True)
class Captured:
    """What a capture gave.

    Attributes:
        graph: to launch, and to destroy in the end; None where the library does something that cannot be captured.
        problem: why there is none.
    """

    graph: int | None
    problem: str | None


def capture_graph(cuda: Cuda, stream: int, enqueue: Callable[[], None]) -> Captured:
    """Captures what is put into a stream; nothing of it runs.

    Args:
        cuda: the GPU.
        stream: that is captured.
        enqueue: puts the work into it.
    """
    problem: str | None = None
    graph: int | None = None
    cuda.begin_capture(stream)
    try:
        enqueue()
    except StepError as error:
        problem = str(error)
    except BaseException:
        with contextlib.suppress(StepError):  # a stream that goes on recording cannot be waited for
            cuda.destroy_graph(cuda.end_capture(stream))
        raise
    try:
        graph = cuda.end_capture(stream)
    except StepError as error:
        problem = problem or str(error)
    if problem is not None and graph is not None:
        with contextlib.suppress(StepError):
            cuda.destroy_graph(graph)
        graph = None
    return Captured(graph, problem)
