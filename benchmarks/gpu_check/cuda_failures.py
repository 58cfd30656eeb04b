"""Sections of the stage `cuda_runtime`: what is forbidden or too much, what others do meanwhile, and what is left."""

import contextlib
import functools
from collections.abc import Callable

from gpu_check.cuda_bench import Bench, Hashing, in_thread
from gpu_check.stage import Report
from step.errors import StepError

_NO_SUCH_MEMORY_BYTES = 1 << 50
_ROUNDS = 5


def spoilt_captures(report: Report, bench: Bench) -> None:
    """Spoils recordings: each is an error, and the stream and the next recording are as good as new."""
    cuda, stream = bench.machine.cuda, bench.stream()
    hashing = Hashing(bench, stream)
    hashing.enqueue(7)
    cuda.synchronize_stream(stream)
    allocated: list[int] = []

    def allocate() -> None:
        allocated.append(cuda.allocate(1 << 20))

    cases: tuple[tuple[str, Callable[[], None], bool], ...] = (
        ("waiting for the stream", functools.partial(cuda.synchronize_stream, stream), True),
        ("allocating memory", allocate, False),
    )
    for index, (name, forbidden, must_fail) in enumerate(cases):
        refused, spoilt = "allowed", "the recording went on"
        cuda.begin_capture(stream)
        hashing.enqueue(7)
        try:
            forbidden()
        except StepError as error:
            refused = str(error)
        try:
            cuda.destroy_graph(cuda.end_capture(stream))
        except StepError as error:
            spoilt = str(error)
        while allocated:
            cuda.free(allocated.pop())
        report.figure(f"{name} while recording", refused, "answer")
        report.figure(f"{name} while recording", spoilt, "end of the recording")
        if must_fail:
            report.check(refused != "allowed", f"{name} while recording is allowed")
            report.check("recording a graph" in spoilt, f"{name} does not end the recording with an error: {spoilt}")
        right = hashing.run(index, 7, lambda: hashing.enqueue(7))
        report.check(right, f"after {name} while recording, the stream computes wrong data")
        graph = bench.graph(stream, lambda: hashing.enqueue(8))
        right = hashing.run(index, 8, functools.partial(cuda.launch, graph, stream))
        report.check(right, f"after {name} while recording, the next graph computes wrong data")


def other_thread(report: Report, bench: Bench) -> None:
    """Checks that while one thread records, another may allocate, copy, wait and free."""
    cuda, stream = bench.machine.cuda, bench.stream()
    hashing = Hashing(bench, stream)
    hashing.enqueue(7)
    cuda.synchronize_stream(stream)
    right: list[bool] = []

    def work() -> None:
        with cuda.active(), contextlib.ExitStack() as stack:
            own = Bench(bench.machine, bench.sizes, stack)
            other = Hashing(own, own.stream())
            right.append(other.run(1, 7, lambda: other.enqueue(7)))

    def record() -> None:
        hashing.enqueue(8)
        problem = in_thread(work)
        report.check(problem is None, f"a thread that works while another one records: {problem}")

    graph = bench.graph(stream, record)
    report.check(right == [True], "a thread that works while another one records computes wrong data")
    good = hashing.run(2, 8, lambda: cuda.launch(graph, stream))
    report.check(good, "a graph that was recorded while another thread worked computes wrong data")


def out_of_memory(report: Report, bench: Bench) -> None:
    """Runs out of memory: one line says so, and all goes on."""
    cuda = bench.machine.cuda
    message = "nothing"
    try:
        cuda.free(cuda.allocate(_NO_SUCH_MEMORY_BYTES))
    except StepError as error:
        message = str(error)
    report.figure("allocating 2^50 bytes", message, "answer")
    good = "is out of memory (allocating" in message and "\n" not in message
    report.check(good, f"allocating 2^50 bytes answers {message!r}")
    stream = bench.stream()
    hashing = Hashing(bench, stream)
    right = hashing.run(3, 7, lambda: hashing.enqueue(7))
    report.check(right, "after an allocation that failed, kernels compute wrong data")


def given_back(report: Report, bench: Bench) -> None:
    """Checks that nothing is lost; others on the card may take and give meanwhile, but not in every round."""
    machine, sizes = bench.machine, bench.sizes
    lost = []
    for number in range(_ROUNDS + 1):
        before = machine.free_bytes()
        with contextlib.ExitStack() as stack:
            own = Bench(machine, sizes, stack)
            stream = own.stream()
            enqueue = functools.partial(Hashing(own, stream).enqueue, 7)
            for _ in range(sizes.handles):
                own.device(1 << 16)
                own.event()
                own.event(timed=True)
            for _ in range(max(1, sizes.handles // 10)):
                own.stream()
                own.pinned(1 << 16)
                machine.cuda.launch(own.graph(stream, enqueue), stream)
            machine.cuda.synchronize_stream(stream)
        if number:  # the first makes CUDA's own pools
            lost.append(before - machine.free_bytes())
    report.figure("memory lost in a round", min(lost), "least of five bytes")
    report.check(min(lost) <= 0, f"every round of making and giving back loses GPU memory, at least {min(lost)} bytes")
    times = machine.gpu.memory_bytes // sizes.big_bytes + 8 if sizes.big_bytes >= 1 << 30 else 8
    for _ in range(times):
        machine.cuda.free(machine.cuda.allocate(sizes.big_bytes))
    report.figure(f"allocated and freed, {sizes.big_bytes / 2**20:.0f} MiB each", times, "times")
