"""The stand-in engines show what goes wrong in the loop around them: faults are put in, one by one."""

import ctypes
import itertools
import re

import numpy as np
import pytest
from fake_gpu import GPU, FakeCuda
from gpu_check.counted_cuda import CountedCuda
from gpu_check.cuda_machine import CudaMachine
from gpu_check.loop_runs import RESULTS, LoopBench, alternating, detect, detect_in_halves, differences, make_clips
from gpu_check.span_checks import hidden_share, span_problems
from gpu_check.spin_bundle import make_bundle
from gpu_check.spin_expected import expected
from gpu_check.spin_launchers import HostLauncher
from helpers import ONE_STEP
from step_runtime.tracing.tracer import GPU as GPU_LANE
from step_runtime.tracing.tracer import GPU_UPLOAD, INFERENCE, Span

from step.bundles.graph_spec import CONTEXT, FEATURES

_CLIPS = 6


class Faulty:
    """The recording GPU and the kernels' launcher with one fault."""

    def __init__(self, fault):
        self._fault, self._fake = fault, FakeCuda()
        self._host = HostLauncher(self._fake.enqueue)

    def __getattr__(self, name):
        return getattr(self._fake, name)

    def download(self, pinned, source, size, stream):
        if self._fault == "downloads read too early":
            ctypes.memmove(pinned, source, size)
        else:
            self._fake.download(pinned, source, size, stream)

    def upload(self, to, pinned, size, stream):
        self._fake.upload(to, pinned, size // 2 if self._fault == "uploads stop half-way" else size, stream)

    def copy(self, to, source, size, stream):
        if self._fault != "inputs are not copied":
            self._fake.copy(to, source, size, stream)

    def wait(self, stream, event):
        if self._fault != "streams do not wait":
            self._fake.wait(stream, event)

    def launch_kernel(self, entry, arguments, stream, *, words=1, clips=1):
        if self._fault == "an engine skips an input" and entry == "digest" and words == self.skipped_words:
            return
        if self._fault == "a kernel leaves out the last clip" and entry == "fill" and clips > 1:
            clips -= 1
        self._host.launch(entry, arguments, stream, words=words, clips=clips)
        if self._fault == "scratch is written by another" and entry == "scribble":
            last = arguments[1] + 4 * words - 1
            self._fake.enqueue(stream, lambda: ctypes.memset(last, 0x55, 1))


class _Launcher:
    def __init__(self, faulty):
        self.launch = faulty.launch_kernel


FAULTS = [
    "downloads read too early",
    "uploads stop half-way",
    "inputs are not copied",
    "streams do not wait",
    "an engine skips an input",
    "a kernel leaves out the last clip",
    "scratch is written by another",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spin")


@pytest.fixture(scope="module")
def manifest(folder):
    return make_bundle(folder, ONE_STEP, scratch_words=300)


def _bench(fault, folder, manifest):
    faulty = Faulty(fault)
    tensor = manifest.graphs["step1"].spec("step1").inputs[1]  # the tubes
    faulty.skipped_words = int(np.prod(tensor.concrete_shape(1)))
    machine = CudaMachine(GPU, CountedCuda(faulty), _Launcher(faulty), lambda: 0, lambda: 0)
    return LoopBench(machine, folder, manifest, most_cycles=0)


def _found(fault, folder, manifest, *, cuda_graph=True):
    clips = make_clips(manifest, _CLIPS)
    bench = _bench(fault, folder, manifest)
    backend = bench.open("steps", cuda_graph=cuda_graph)
    found, _ = detect(backend, clips, alternating(_CLIPS))
    backend.close()
    assert bench.machine.counted.not_given_back() == []
    return differences(found, expected(manifest, "steps", clips, RESULTS))


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_loop_without_a_fault(cuda_graph, folder, manifest):
    assert _found(None, folder, manifest, cuda_graph=cuda_graph) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(fault, folder, manifest):
    assert any("is wrong of" in text for text in _found(fault, folder, manifest))


def test_the_halves_are_checked_too(folder, manifest):
    clips = make_clips(manifest, _CLIPS)
    wanted = expected(manifest, "steps", clips, (FEATURES, CONTEXT, *RESULTS))
    for fault in (None, "uploads stop half-way"):
        backend = _bench(fault, folder, manifest).open("steps", cuda_graph=True)
        wrong = differences(detect_in_halves(backend, clips, alternating(_CLIPS)), wanted)
        assert [text.split()[0] for text in wrong] == ([] if fault is None else list(wanted))


def test_what_is_not_given_back_is_told():
    cuda = CountedCuda(FakeCuda())
    with cuda.active():
        cuda.destroy_stream(cuda.create_stream())
        assert cuda.not_given_back() == []
        cuda.create_timed_event()
    assert cuda.not_given_back() == ["create_event: 1 made, 0 given back"]
    assert "launch" in cuda.never_called()
    assert "create_stream" not in cuda.never_called()


MS = 1_000_000
SPANS = [
    Span("to page-locked", INFERENCE, 0, 10 * MS),
    Span("wait for the GPU", INFERENCE, 20 * MS, 50 * MS, GPU_LANE),
    Span("upload", GPU_UPLOAD, 10 * MS, 20 * MS),
    Span("copy", GPU_LANE, 20 * MS, 21 * MS),
    Span("fused", GPU_LANE, 21 * MS, 40 * MS),
    Span("download", GPU_LANE, 40 * MS, 50 * MS),
]


def test_spans_that_can_be_true():
    assert span_problems(SPANS, calls=1, stages=["fused"]) == []
    assert hidden_share(SPANS) == 0
    assert hidden_share([*SPANS, Span("upload", GPU_UPLOAD, 35 * MS, 55 * MS)]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (SPANS[2]._replace(end_ns=30 * MS), "the copy begins 10000000 ns before its upload ends"),
        (SPANS[2]._replace(start_ns=0), "the upload begins before its frames"),
        (SPANS[4]._replace(start_ns=19 * MS), "fused begins .* before copy of its own stream ends"),
        (SPANS[5]._replace(end_ns=60 * MS), "the download ends after the host has seen its end"),
        (SPANS[5]._replace(name="detect"), "1 calls left 1 uploads and 3 stages"),
    ],
)
def test_spans_that_cannot_be_true(changed, said):
    place = {"upload": 2, "fused": 4, "download": 5, "detect": 5}[changed.name]
    spans = [*SPANS[:place], changed, *SPANS[place + 1 :]]
    problems = span_problems(spans, calls=1, stages=["fused"])
    assert len(problems) == 1
    assert re.search(said, problems[0])


def test_calls_alternate_and_cover_every_clip():
    calls = alternating(50)
    assert [call.clips for call in calls[:6]] == [1, 2, 1, 2, 1, 2]
    assert calls[0].first == 0
    assert all(after.first == before.first + before.clips for before, after in itertools.pairwise(calls))
    assert sum(call.clips for call in calls) == 50
