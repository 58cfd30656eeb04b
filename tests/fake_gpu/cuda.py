"""A GPU that does its work as late as it may."""

import contextlib
import ctypes
import time
from collections import deque
from collections.abc import Callable, Iterator

from step_runtime.backends.gpus import Gpu

from step import StepError

GPU = Gpu(index=0, name="Fake GPU", capability="sm89", memory_bytes=1 << 34, uuid="GPU-0")

Work = Callable[[], object]


class FakeCuda:
    """Is a `step_runtime.backends.cuda.Cuda`; `calls` is what it was told, in order.

    Args:
        fail_at: the call that raises.
    """

    def __init__(self, *, fail_at: str | None = None) -> None:
        self.is_lost = False  # then every call fails
        self.depth = 0  # blocks of `active` that the caller is in
        self.calls: list[str] = []
        self.memory: dict[int, ctypes.Array[ctypes.c_uint8]] = {}
        self.handles: set[int] = set()
        self.queues: dict[int, deque[Work]] = {}
        self.recording: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.recorded: dict[int, int] = {}  # event -> times it was recorded
        self.happened: dict[int, int] = {}
        self.happened_ns: dict[int, int] = {}
        self.timed: set[int] = set()
        self.recorded_on: dict[int, int] = {}  # event -> stream
        self._next = 1
        self._fail_at = fail_at

    @property
    def leaks(self) -> int:
        """Counts what was made and not given back."""
        return len(self.memory) + len(self.handles) + len(self.graphs)

    def note(self, call: str) -> None:
        """Writes a call down; raises where this GPU is to fail."""
        self.calls.append(call)
        assert call == "active" or self.depth or self.is_lost, f"{call} outside of active()"
        if self.is_lost or call == self._fail_at:
            raise StepError(f"the fake GPU fails at {call}")

    def _handle(self) -> int:
        self._next += 1
        return self._next

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        self.note("active")
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def _allocate(self, size: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(memory)
        self.memory[address] = memory
        return address

    def allocate(self, size: int) -> int:
        self.note("allocate")
        return self._allocate(size)

    def allocate_pinned(self, size: int) -> int:
        self.note("allocate_pinned")
        return self._allocate(size)

    def free(self, address: int) -> None:
        self.note("free")
        del self.memory[address]

    def free_pinned(self, address: int) -> None:
        self.note("free_pinned")
        del self.memory[address]

    def create_stream(self) -> int:
        self.note("create_stream")
        stream = self._handle()
        self.handles.add(stream)
        self.queues[stream] = deque()
        return stream

    def destroy_stream(self, stream: int) -> None:
        self.note("destroy_stream")
        self.handles.remove(stream)

    def create_event(self) -> int:
        self.note("create_event")
        event = self._handle()
        self.handles.add(event)
        self.recorded[event] = self.happened[event] = 0
        return event

    def create_timed_event(self) -> int:
        event = self.create_event()
        self.timed.add(event)
        return event

    def elapsed_ms(self, start: int, end: int) -> float:
        self.note("elapsed_ms")
        assert {start, end} <= self.timed
        for event in (start, end):
            assert self.recorded[event] == self.happened[event] > 0, "it has not happened yet"
        return (self.happened_ns[end] - self.happened_ns[start]) / 1e6

    def destroy_event(self, event: int) -> None:
        self.note("destroy_event")
        self.handles.remove(event)

    def enqueue(self, stream: int, work: Work) -> None:
        """Puts work into its stream, where it waits, or records it."""
        if stream in self.recording:
            self.recording[stream].append(work)
        else:
            self.queues[stream].append(work)

    def upload(self, to: int, pinned: int, size: int, stream: int) -> None:
        self.note("upload")
        self.enqueue(stream, lambda: ctypes.memmove(to, pinned, size))

    def download(self, pinned: int, source: int, size: int, stream: int) -> None:
        self.note("download")
        self.enqueue(stream, lambda: ctypes.memmove(pinned, source, size))

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        self.note("copy")
        self.enqueue(stream, lambda: ctypes.memmove(to, source, size))

    def record(self, event: int, stream: int) -> None:
        self.note("record")
        self.recorded[event] += 1
        number = self.recorded[event]
        self.recorded_on[event] = stream
        self.enqueue(stream, lambda: self._happens(event, number))

    def _happens(self, event: int, number: int) -> None:
        self.happened[event] = number
        self.happened_ns[event] = time.perf_counter_ns()

    def wait(self, stream: int, event: int) -> None:
        self.note("wait")
        number = self.recorded[event]
        self.enqueue(stream, lambda: self._run_until(event, number))

    def _run_until(self, event: int, number: int) -> None:
        """Does the work of the event's stream, in order, until the event happens; no other stream's."""
        while self.happened[event] < number:
            self.queues[self.recorded_on[event]].popleft()()

    def synchronize_event(self, event: int) -> None:
        self.note("synchronize_event")
        self._run_until(event, self.recorded[event])

    def synchronize_stream(self, stream: int) -> None:
        self.note("synchronize_stream")
        assert stream not in self.recording, "a stream that is being recorded cannot be waited for"
        while self.queues[stream]:
            self.queues[stream].popleft()()

    def begin_capture(self, stream: int) -> None:
        self.note("begin_capture")
        self.recording[stream] = []

    def end_capture(self, stream: int) -> int:
        works = self.recording.pop(stream)  # which ends even if it fails
        self.note("end_capture")
        graph = self._handle()
        self.graphs[graph] = works
        return graph

    def launch(self, graph: int, stream: int) -> None:
        self.note("launch")
        for work in self.graphs[graph]:
            self.enqueue(stream, work)

    def destroy_graph(self, graph: int) -> None:
        self.note("destroy_graph")
        del self.graphs[graph]
