"""Stage: every call of `step_runtime.backends.cuda.CudaRuntime`, with its effect checked in data or in time."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable

import numpy as np

from gpu_check.cuda_bench import CLOCK, Bench, Hashing, Sizes
from gpu_check.cuda_machine import CudaMachine, open_machine
from gpu_check.spin_arithmetic import Words, filled
from gpu_check.stage import Report, StageOptions, run_stage
from step.errors import StepError

_NO_SUCH_MEMORY_BYTES = 1 << 50
_ROUNDS = 5
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
    device = machine.current_device()
    report.figure("GPU", machine.gpu.name, "found")
    _guarded(report, machine, sizes, _copies)
    for section in (_events, _ordering, _graphs, _spoilt_captures, _other_thread, _out_of_memory, _given_back):
        _guarded(report, machine, sizes, section)
    missing = machine.counted.never_called()
    report.check(not missing, f"methods that were never called, or never without an error: {', '.join(missing)}")
    for text in machine.counted.not_given_back():
        report.problem(f"not given back: {text}")
    now = machine.current_device()
    report.check(now == device, f"the thread's GPU is {now} in the end; it was {device}")
    report.figure("calls of CUDA", sum(machine.counted.calls.values()), "calls")


def _guarded(report: Report, machine: CudaMachine, sizes: Sizes, section: Callable[[Report, Bench], None]) -> None:
    name = section.__name__.strip("_").replace("_", " ")
    start_s = time.perf_counter()
    try:
        with contextlib.ExitStack() as stack:
            section(report, Bench(machine, sizes, stack))
    except (StepError, RuntimeError, TypeError, OverflowError) as error:  # the last ones are the bindings' words
        report.problem(f"{name}: {error}")
    report.figure(name, round(time.perf_counter() - start_s, 3), "took s")


def _copies(report: Report, bench: Bench) -> None:
    """Up, on the device and down again, on two streams at once; then how fast each of them is."""
    cuda, random = bench.machine.cuda, np.random.default_rng(0)
    cuda.activate()
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
    for name, copy in (
        ("upload", lambda: cuda.upload(first, source, size, stream)),
        ("copy on the GPU", lambda: cuda.copy(second, first, size, stream)),
        ("download", lambda: cuda.download(target, second, size, stream)),
    ):
        cuda.record(start, stream)
        for _ in range(10):
            copy()
        cuda.record(end, stream)
        cuda.synchronize_event(end)
        elapsed_ms = cuda.elapsed_ms(start, end)
        if report.check(elapsed_ms > 0, f"{name}: ten copies took {elapsed_ms} ms"):
            report.figure(f"{name}, {size / 2**20:.0f} MiB", round(10 * size / elapsed_ms / 1e6, 2), "GB/s")


def _events(report: Report, bench: Bench) -> None:
    """The time between two events is the kernel's between them, and the host's clock agrees."""
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
    """What waits for an event sees what was written before it; what does not wait sees the past."""
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
    """Two graphs in turns, each on new input every time."""
    cuda, words = bench.machine.cuda, bench.sizes.words
    stream, done = bench.stream(), bench.event()
    hashing = Hashing(bench, stream)
    hashing.enqueue(7)
    cuda.synchronize_stream(stream)
    graphs = {salt: bench.graph(stream, lambda salt=salt: hashing.enqueue(salt)) for salt in (7, 8)}
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


def _spoilt_captures(report: Report, bench: Bench) -> None:
    """A recording that something forbidden ends: an error, and the stream and the next recording are as good as new."""
    cuda, stream = bench.machine.cuda, bench.stream()
    hashing = Hashing(bench, stream)
    hashing.enqueue(7)
    cuda.synchronize_stream(stream)
    allocated: list[int] = []
    cases = (
        ("waiting for the stream", lambda: cuda.synchronize_stream(stream), True),
        ("allocating memory", lambda: allocated.append(cuda.allocate(1 << 20)), False),
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
        right = hashing.run(index, 8, lambda graph=graph: cuda.launch(graph, stream))
        report.check(right, f"after {name} while recording, the next graph computes wrong data")


def _other_thread(report: Report, bench: Bench) -> None:
    """While one thread records, another may allocate, copy, wait and free."""
    cuda, stream = bench.machine.cuda, bench.stream()
    hashing, problems = Hashing(bench, stream), []
    hashing.enqueue(7)
    cuda.synchronize_stream(stream)

    def work() -> None:
        try:
            cuda.activate()
            with contextlib.ExitStack() as stack:
                own = Bench(bench.machine, bench.sizes, stack)
                other = Hashing(own, own.stream())
                if not other.run(1, 7, lambda: other.enqueue(7)):
                    problems.append("its data is wrong")
        except StepError as error:
            problems.append(str(error))

    thread = threading.Thread(target=work)

    def record() -> None:
        hashing.enqueue(8)
        thread.start()
        thread.join()

    graph = bench.graph(stream, record)
    for text in problems:
        report.problem(f"a thread that works while another one records: {text}")
    right = hashing.run(2, 8, lambda: cuda.launch(graph, stream))
    report.check(right, "a graph that was recorded while another thread worked computes wrong data")


def _out_of_memory(report: Report, bench: Bench) -> None:
    """One line that says so, and all goes on."""
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


def _given_back(report: Report, bench: Bench) -> None:
    """Making and giving back loses nothing; others on the card may take and give meanwhile, but not in every round."""
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


def _pattern(words: int, salt: int) -> Words:
    return filled(np.full(1, CLOCK, np.uint32), words, salt)[0]


if __name__ == "__main__":
    run_stage("cuda_runtime", measure)
