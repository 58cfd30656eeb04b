"""One model that several threads call: each gets its own clips' detections, to the bit."""

import gc
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from fake_gpu import GPU, FakeCuda, FakeTensorRT, add_fake_engines
from step_runtime import Detector
from step_runtime.backends.tensorrt import LibraryOnGpu, TensorRTBackend
from step_runtime.tracing.tracer import SILENT

from step import StepError
from step.bundles.manifest import read_bundle

BACKENDS = ("onnxruntime", "openvino", "torch", "tensorrt")


class _CallsAgain:
    """A tracer in whose first span, the beginning of a call, something is done once."""

    is_on = False

    def __init__(self) -> None:
        self.act: Callable[[], object] | None = None
        self.said: list[str] = []

    def span(self, name, *, waits_for=None):
        act, self.act = self.act, None
        if act is not None:
            with pytest.raises(RuntimeError) as error:
                act()
            self.said.append(str(error.value))
        return SILENT.span(name, waits_for=waits_for)

    def add(self, *arguments, **options):
        SILENT.add(*arguments, **options)

    def each(self, *arguments, **options):
        return SILENT.each(*arguments, **options)


def _open(name, loop, tiny_bundle, tmp_path, *, tracer=SILENT) -> Detector:
    if name == "torch":
        return Detector.open(tiny_bundle.parent / "model.pth", device="cpu", threads=1, tracer=tracer)
    if name != "tensorrt":
        return Detector.open(tiny_bundle, name, loop=loop, device="cpu", threads=1, tracer=tracer)
    bundle = tmp_path / "b"
    shutil.copytree(tiny_bundle, bundle)
    add_fake_engines(bundle, max_batch=2)
    cuda = FakeCuda()
    return Detector(
        TensorRTBackend(
            LibraryOnGpu(name="tensorrt", trt=FakeTensorRT(cuda), cuda=cuda, gpu=GPU),
            bundle,
            read_bundle(bundle),
            loop=loop,
            num_steps=3,
            tracer=tracer,
        )
    )


def _call_from_threads(detector: Detector, clips: np.ndarray, *, threads: int, calls: int) -> list[str]:
    """What went wrong."""
    expected = [detector.detect(clips[index : index + 1]) for index in range(len(clips))]
    assert np.abs(expected[0].tubes_px - expected[1].tubes_px).max() > 1, "the clips cannot be told apart"
    wrong: list[str] = []
    together = threading.Barrier(threads)

    def work(number: int) -> None:
        together.wait(30)
        for call in range(calls):
            index = (number + call) % len(clips)
            found = detector.detect(clips[index : index + 1])
            for name, value in found._asdict().items():
                if not np.array_equal(value, getattr(expected[index], name)):
                    wrong.append(f"thread {number}, call {call}: {name}")

    workers = [threading.Thread(target=work, args=[number]) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong


@pytest.mark.parametrize("loop", ["fused", "steps"])
@pytest.mark.parametrize("name", BACKENDS)
def test_threads_share_a_detector(name, loop, tiny_bundle, tiny_clips, tmp_path):
    with _open(name, loop, tiny_bundle, tmp_path) as detector:
        assert _call_from_threads(detector, tiny_clips, threads=4, calls=2 if name == "tensorrt" else 3) == []


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["fused", "steps"])
@pytest.mark.parametrize("name", BACKENDS)
def test_many_threads_share_a_detector(name, loop, tiny_bundle, tiny_clips, tmp_path):
    with _open(name, loop, tiny_bundle, tmp_path) as detector:
        assert _call_from_threads(detector, tiny_clips, threads=8, calls=60) == []


def test_results_that_are_asked_for_late(tiny_bundle, tiny_clips, tmp_path):
    """More clips than a GPU has room for: the first ones' results are put aside for whoever asks."""
    with _open("tensorrt", "fused", tiny_bundle, tmp_path) as detector:
        expected = [detector.detect(tiny_clips[index : index + 1]) for index in (0, 1)]
        order = (0, 1, 1, 0, 1)
        pending = [detector.backend.submit(tiny_clips[index : index + 1]) for index in order]
        for index, call in zip(order, pending, strict=True):
            assert np.array_equal(call.result().scores, expected[index].scores)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_forked_process_opens_its_own(name, tiny_bundle, tiny_clips, tmp_path, monkeypatch):
    with _open(name, "steps", tiny_bundle, tmp_path) as detector:
        own = os.getpid()
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: own + 1)
            with pytest.raises(StepError, match=f"was opened in process {own}, of which this one was forked; open it"):
                detector.detect(tiny_clips[:1])
        detector.detect(tiny_clips[:1])


@pytest.mark.parametrize("loop", ["fused", "steps"])
@pytest.mark.parametrize("name", BACKENDS)
def test_arrays_are_the_callers(name, loop, tiny_bundle, tiny_clips, tmp_path):
    """Contiguous; what is written to them reaches no later call, and what later calls write does not reach them."""
    with _open(name, loop, tiny_bundle, tmp_path) as detector:
        calls = [lambda index: [detector.detect(tiny_clips[index : index + 1])]]
        if detector.gives_every_step:
            calls.append(lambda index: detector.detect_every_step(tiny_clips[index : index + 1]))
        for call in calls:
            first = call(0)
            kept = [[array.copy() for array in found] for found in first]
            call(1)
            for found, before in zip(first, kept, strict=True):
                for array, value in zip(found, before, strict=True):
                    assert array.flags.c_contiguous
                    assert np.array_equal(array, value)
                    array[...] = 1
            again = call(0)
            assert all(
                np.array_equal(a, b) for x, y in zip(again, kept, strict=True) for a, b in zip(x, y, strict=True)
            )


@pytest.mark.parametrize("name", BACKENDS)
def test_a_closed_model_says_so(name, tiny_bundle, tiny_clips, tmp_path):
    detector = _open(name, "steps", tiny_bundle, tmp_path)
    expected = detector.backend.submit(tiny_clips[:1]).result()
    features = detector.backend.extract(tiny_clips[:1])
    call = detector.backend.submit_features(features)
    detector.close()
    detector.close()
    with pytest.raises(RuntimeError, match="the model is closed; open it again"):
        detector.detect(tiny_clips[:1])
    with pytest.raises(RuntimeError, match="the model is closed"):
        detector.backend.extract(tiny_clips[:1])
    if name == "tensorrt":  # its result was under way
        with pytest.raises(RuntimeError, match="the model is closed"):
            call.result()
    else:
        assert np.array_equal(call.result().scores, expected.scores)


@pytest.mark.parametrize("name", BACKENDS)
def test_closing_waits_for_a_call_and_a_call_finds_it_closed(name, tiny_bundle, tiny_clips, tmp_path):
    """Whoever closes while others call: each call either gives its own clip's detections or says that it is closed."""
    detector = _open(name, "steps", tiny_bundle, tmp_path)
    expected = detector.detect(tiny_clips[:1]).scores
    together = threading.Barrier(4)
    said: list[str] = []

    def work() -> None:
        together.wait(30)
        try:
            for _ in range(50):
                assert np.array_equal(detector.detect(tiny_clips[:1]).scores, expected)
        except RuntimeError as error:
            said.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    together.wait(30)
    detector.detect(tiny_clips[:1])
    detector.close()
    for thread in threads:
        thread.join()
    assert set(said) == {"the model is closed; open it again"}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_call_in_the_middle_of_a_call(name, tiny_bundle, tiny_clips, tmp_path):
    """A handler that calls the model again would spoil the call that it interrupts."""
    tracer = _CallsAgain()
    with _open(name, "steps", tiny_bundle, tmp_path, tracer=tracer) as detector:
        expected = detector.detect(tiny_clips[:1])
        tracer.act = lambda: detector.detect(tiny_clips[1:2])
        found = detector.detect(tiny_clips[:1])
        assert tracer.said == ["the model is called in the middle of another call of the same thread; call it after"]
        assert np.array_equal(found.scores, expected.scores)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_memory_does_not_grow_with_the_numbers_of_clips(loop, tiny_bundle):
    """Twelve numbers of clips take little more than the largest alone; each kept its own before."""
    code = f"""
import numpy as np
from step_runtime import Detector
def resident_mb():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))) / 1e3
clips = np.random.RandomState(0).randint(0, 256, (12, 36, 64, 64, 3), np.uint8)
def grown(batches):
    with Detector.open({str(tiny_bundle)!r}, "onnxruntime", loop={loop!r}, device="cpu", threads=1) as detector:
        before = resident_mb()
        for _ in range(2):
            for batch in batches:
                detector.backend.submit(clips[:batch])
        return resident_mb() - before
print(grown([int(word) for word in __import__("sys").argv[1:]]))
"""
    gc.collect()
    grown = [
        float(subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=True, text=True).stdout)
        for words in (["12"], [str(batch) for batch in range(1, 13)])
    ]
    assert grown[1] <= 2 * grown[0], grown
