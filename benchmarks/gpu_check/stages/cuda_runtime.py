"""Stage: every call of `step_runtime.backends.cuda.CudaRuntime`, with its effect checked in data or in time."""

import contextlib
import functools
import time
from collections.abc import Callable

import numpy as np

from gpu_check.cuda_bench import CLOCK, Bench, Hashing, Sizes, in_thread
from gpu_check.cuda_failures import given_back, other_thread, out_of_memory, spoilt_captures
from gpu_check.cuda_machine import CudaMachine, open_machine
from gpu_check.spin_arithmetic import Words, filled
from gpu_check.stage import Report, StageOptions, run_stage
from step.errors import StepError

_SIZES = {
    "cuda": Sizes(1 << 26, 1 << 18, 300, 40_000_000, 200, 1 << 30),
    "none": Sizes(1 << 20, 1 << 10, 20, 4_000_000, 10, 1 << 20),
}


def measure(report: Report, options: StageOptions) -> None:
    """Goes through memory, copies, events, streams, graphs, their failures, and what is left at the end.

    Raises:
        StepError: no GPU, or one whose driver does not take the kernels.
    """
    machine, sizes = open_machine(options.device), _SIZES[options.device]
    context = machine.current_context()
    report.figure("GPU", machine.gpu.name, "found")
    for section in (
        _contexts,
        _copies,
        _events,
        _ordering,
        _graphs,
        spoilt_captures,
        other_thread,
        out_of_memory,
        given_back,
    ):
        _guarded(report, machine, sizes, section)
        now = machine.current_context()
        report.check(now == context, f"after {section.__name__}, the thread's context is {now:#x}; it was {context:#x}")
    missing = machine.counted.never_called()
    report.check(not missing, f"methods that were never called, or never without an error: {', '.join(missing)}")
    for text in machine.counted.not_given_back():
        report.problem(f"not given back: {text}")
    report.figure("calls of CUDA", sum(machine.counted.calls.values()), "calls")


def _guarded(report: Report, machine: CudaMachine, sizes: Sizes, section: Callable[[Report, Bench], None]) -> None:
    name = section.__name__.strip("_").replace("_", " ")
    start_s = time.perf_counter()
    try:
        with machine.cuda.active(), contextlib.ExitStack() as stack:
            section(report, Bench(machine, sizes, stack))
    except (StepError, RuntimeError, TypeError, OverflowError) as error:  # the last ones are the bindings' words
        report.problem(f"{name}: {error}")
    report.figure(name, round(time.perf_counter() - start_s, 3), "took s")


def _contexts(report: Report, bench: Bench) -> None:
    """Checks that a new thread has the GPU within a block, and then what it had before, even after an error."""
    machine, found = bench.machine, {}
    own = machine.current_context()
    report.check(own != 0, "the thread has no context within a block of active()")

    def work() -> None:
        before = machine.current_context()
        with contextlib.suppress(StepError), machine.cuda.active():
            found["within a block"] = machine.current_context(), own
            with machine.cuda.active():
                found["within a block in a block"] = machine.current_context(), own
            found["after the inner block"] = machine.current_context(), own
            raise StepError("on purpose")
        found["after an error in the block"] = machine.current_context(), before

    problem = in_thread(work)
    report.check(problem is None, f"a new thread: {problem}")
    for when, (context, wanted) in found.items():
        report.check(context == wanted, f"a new thread's context {when} is {context:#x}; it must be {wanted:#x}")


def _copies(report: Report, bench: Bench) -> None:
    """Copies up, on the device and down again, on two streams at once; then measures how fast each of them is."""
    cuda, random = bench.machine.cuda, np.random.default_rng(0)
    streams = [bench.stream(), bench.stream()]
    for size in (1, 4097, bench.sizes.large_bytes):
        lanes = []
        for stream in streams:
            (source, sent), (target, got) = bench.pinned(size), bench.pinned(size)
            sent[...] = random.integers(0, 256, size, np.uint8)
            got[...] = ~sent
            first, second = bench.device(size), bench.device(size)
            cuda.upload(first, source, size, stream)
            cuda.copy(second, first, size, stream)
            cuda.download(target, second, size, stream)
            lanes.append((stream, sent, got, first, second, source, target))
        for index, (stream, sent, got, *_) in enumerate(lanes):
            cuda.synchronize_stream(stream)
            report.check(np.array_equal(sent, got), f"{size} bytes come back changed on stream {index + 1}")
    stream, _, _, first, second, source, target = lanes[0]
    start, end = bench.event(timed=True), bench.event(timed=True)
    copies: tuple[tuple[str, Callable[[], None]], ...] = (
        ("upload", lambda: cuda.upload(first, source, size, stream)),
        ("copy on the GPU", lambda: cuda.copy(second, first, size, stream)),
        ("download", lambda: cuda.download(target, second, size, stream)),
    )
    for name, copy in copies:
        cuda.record(start, stream)
        for _ in range(10):
            copy()
        cuda.record(end, stream)
        cuda.synchronize_event(end)
        elapsed_ms = cuda.elapsed_ms(start, end)
        if report.check(elapsed_ms > 0, f"{name}: ten copies took {elapsed_ms} ms"):
            report.figure(f"{name}, {size / 2**20:.0f} MiB", round(10 * size / elapsed_ms / 1e6, 2), "GB/s")


def _events(report: Report, bench: Bench) -> None:
    """Checks that the time between two events is the kernel's between them, and that the host's clock agrees."""
    cuda, launcher = bench.machine.cuda, bench.machine.launcher
    stream, start, end, plain = bench.stream(), bench.event(timed=True), bench.event(timed=True), bench.event()
    launcher.launch("spin", (1,), stream)  # the first launch of a kernel loads it
    cuda.synchronize_stream(stream)
    for cycles in (bench.sizes.long_cycles // 10, bench.sizes.long_cycles // 5):
        start_s = time.perf_counter()
        cuda.record(start, stream)
        launcher.launch("spin", (cycles,), stream)
        cuda.record(end, stream)
        cuda.record(plain, stream)
        called_s = time.perf_counter()
        cuda.synchronize_event(plain)
        wall_ms, called_ms = 1e3 * (time.perf_counter() - start_s), 1e3 * (called_s - start_s)
        elapsed_ms = cuda.elapsed_ms(start, end)
        least_ms = cycles / 4e6  # no GPU's clock has 4 GHz
        report.check(
            least_ms <= elapsed_ms <= wall_ms + 0.1,
            f"a kernel of {cycles} cycles took {elapsed_ms:.3f} ms by events, {wall_ms:.3f} ms by the host's clock",
        )
        report.figure(f"kernel of {cycles} cycles", round(elapsed_ms, 4), "by events ms")
        report.figure(f"kernel of {cycles} cycles", round(wall_ms, 4), "by the host ms")
        report.figure(f"kernel of {cycles} cycles", round(called_ms, 4), "until the calls returned ms")


def _ordering(report: Report, bench: Bench) -> None:
    """Checks that what waits for an event sees what was written before it, and what does not wait sees the past."""
    cuda, launcher, words = bench.machine.cuda, bench.machine.launcher, bench.sizes.words
    writer, reader = bench.stream(), bench.stream()
    written, done = bench.event(), bench.event()
    seed, shared, taken = bench.device(4), bench.device(4 * words), bench.device(4 * words)
    target, got = bench.pinned(4 * words)

    def write(salt: int) -> None:
        launcher.launch("fill", (seed, shared, words, salt, 0), writer, words=words)

    launcher.launch("clear", (seed, 1, CLOCK), writer)
    launcher.launch("spin", (1,), writer)
    cuda.synchronize_stream(writer)
    seen = {}
    for waits, old, new in ((True, 1, 2), (False, 3, 4)):
        write(old)
        cuda.synchronize_stream(writer)
        launcher.launch("spin", (bench.sizes.long_cycles,), writer)
        write(new)
        cuda.record(written, writer)
        if waits:
            cuda.wait(reader, written)
        cuda.copy(taken, shared, 4 * words, reader)
        cuda.download(target, taken, 4 * words, reader)
        cuda.record(done, reader)
        cuda.synchronize_event(done)
        seen[waits] = [salt for salt in (old, new) if np.array_equal(got.view(np.uint32), _pattern(words, salt))]
        cuda.synchronize_stream(writer)
    report.check(seen[True] == [2], "a stream that waits for an event of another reads what was there before the event")
    telling = seen[False] == [3]
    report.figure("a stream that does not wait", "reads the past" if telling else "came too late to tell", "found")


def _graphs(report: Report, bench: Bench) -> None:
    """Replays two graphs alternately, each on new input every time."""
    cuda, words = bench.machine.cuda, bench.sizes.words
    stream, done = bench.stream(), bench.event()
    hashing = Hashing(bench, stream)
    hashing.enqueue(7)
    cuda.synchronize_stream(stream)
    graphs = {salt: bench.graph(stream, functools.partial(hashing.enqueue, salt)) for salt in (7, 8)}
    wrong, launch_s = 0, 0.0
    for index in range(bench.sizes.replays):
        salt = 7 + index % 2
        expected = hashing.prepare(index, salt)
        start_s = time.perf_counter()
        cuda.launch(graphs[salt], stream)
        launch_s += time.perf_counter() - start_s
        hashing.fetch()
        cuda.record(done, stream)
        cuda.synchronize_event(done)
        wrong += not np.array_equal(hashing.got, expected)
    report.check(not wrong, f"{wrong} of {bench.sizes.replays} replays of a graph gave wrong data ({words} words each)")
    report.figure("replays of a graph, data checked", bench.sizes.replays, "replays")
    report.figure("host's time for a launch", round(1e6 * launch_s / bench.sizes.replays, 2), "us")


def _pattern(words: int, salt: int) -> Words:
    tensor: Words = filled(np.full(1, CLOCK, np.uint32), words, salt)[0]
    return tensor


if __name__ == "__main__":
    run_stage("cuda_runtime", measure)
