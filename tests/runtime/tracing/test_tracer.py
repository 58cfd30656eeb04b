"""Traces: what is recorded; step-run --trace."""

import itertools
import json
import shutil
import threading
import time

import numpy as np
import pytest
from fake_gpu import GPU, FakeCuda, FakeTensorRT, add_fake_engines
from helpers import assert_one_error, run_command
from step_runtime import Detector
from step_runtime.backends.onnxruntime import OnnxRuntimeBackend
from step_runtime.backends.tensorrt import LibraryOnGpu, TensorRTBackend
from step_runtime.cli import main
from step_runtime.tracing.tracer import SILENT, Recorder

from step import StepError
from step.bundles.manifest import read_bundle

STEP_LOOP = ["backbone", "step1", "step2", "step3", "detect"]


def _names(spans, lane="inference"):
    """Names the spans of work, in order, without what is waited for."""
    ordered = sorted(spans, key=lambda span: span.start_ns)
    return [span.name for span in ordered if span.lane == lane and span.waits_for is None]


def test_blocks_and_items_are_recorded_in_their_thread():
    recorder = Recorder()
    inside_ns: list[int] = []

    def work():
        with recorder.span("encode"):
            inside_ns.extend((time.perf_counter_ns(), time.perf_counter_ns()))

    with recorder.span("upload"):
        thread = threading.Thread(target=work, name="step-writer")
        thread.start()
        thread.join()
    assert list(recorder.each("wait", "ab", waits_for="reader")) == ["a", "b"]
    assert [(span.lane, span.name, span.waits_for) for span in recorder.spans] == [
        ("writer", "encode", None),
        ("inference", "upload", None),
        *[("inference", "wait", "reader")] * 3,  # the last one until it was known that there is no more
    ]
    encode, upload = recorder.spans[:2]
    assert encode.start_ns <= inside_ns[0] <= inside_ns[1] <= encode.end_ns
    assert encode.duration_ns == encode.end_ns - encode.start_ns
    assert upload.start_ns < encode.start_ns <= encode.end_ns < upload.end_ns


def test_threads_lose_no_span():
    recorder = Recorder()

    def work():
        for _ in recorder.each("item", range(2000)):
            pass

    threads = [threading.Thread(target=work, name=f"step-{index}") for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lanes = [span.lane for span in recorder.spans]
    assert [lanes.count(str(index)) for index in range(4)] == [2000] * 4


def test_a_full_recorder_counts():
    recorder = Recorder(capacity=3)
    list(recorder.each("item", range(5)))
    assert (len(recorder.spans), recorder.left_out) == (3, 2)


def test_a_block_that_fails_is_recorded_too():
    recorder = Recorder()
    with pytest.raises(ValueError, match="no"), recorder.span("encode"):
        raise ValueError("no")
    assert _names(recorder.spans) == ["encode"]


def test_nobody_asked():
    items = iter("ab")
    assert SILENT.each("item", items) is items
    with SILENT.span("block"):
        pass
    assert not SILENT.is_on


@pytest.mark.parametrize(
    ("backend", "loop", "expected"),
    [
        ("onnxruntime", "fused", ["upload", "fused", "download"]),
        ("onnxruntime", "steps", ["upload", *STEP_LOOP, "download"]),
        ("openvino", "fused", ["fused", "download"]),
        ("openvino", "steps", [*STEP_LOOP, "download"]),
    ],
)
def test_every_graph_is_a_span(backend, loop, expected, tiny_bundle, tiny_clips):
    recorder = Recorder()
    with Detector.open(tiny_bundle, backend, loop=loop, device="cpu", tracer=recorder) as detector:
        detector.detect(tiny_clips[:1])
    assert _names(recorder.spans) == expected


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_traced_run_gives_the_same(backend, tiny_bundle, tiny_clips):
    """The same graphs run, so that it is the same to the bit."""
    found = []
    for tracer in (SILENT, Recorder()):
        with Detector.open(tiny_bundle, backend, loop="steps", device="cpu", tracer=tracer) as detector:
            found.append(detector.detect(tiny_clips))
    for plain, traced in zip(*found, strict=True):
        np.testing.assert_array_equal(traced, plain)


def test_pytorchs_parts_are_spans(tiny_checkpoint, tiny_clips):
    recorder = Recorder()
    with Detector.open(tiny_checkpoint, device="cpu", num_steps=2, tracer=recorder) as detector:
        detector.detect(tiny_clips[:1])
    assert _names(recorder.spans) == ["upload", "backbone", "context", "step1", "step2", "detect", "download"]


@pytest.fixture(scope="module")
def engine_bundle(tiny_bundle, tmp_path_factory):
    copy = tmp_path_factory.mktemp("engines") / "bundle"
    shutil.copytree(tiny_bundle, copy)
    add_fake_engines(copy)
    add_fake_engines(copy, "tensorrt-rtx")
    return copy


def _open(bundle, cuda, tracer, *, library="tensorrt", loop="fused", cuda_graph=True):
    return TensorRTBackend(
        LibraryOnGpu(name=library, trt=FakeTensorRT(cuda), cuda=cuda, gpu=GPU),
        bundle,
        read_bundle(bundle),
        loop=loop,
        num_steps=3,
        cuda_graph=cuda_graph,
        tracer=tracer,
    )


@pytest.mark.parametrize(
    ("library", "loop", "cuda_graph", "engines"),
    [
        ("tensorrt", "fused", False, ["fused"]),
        ("tensorrt", "fused", True, ["fused"]),
        ("tensorrt", "steps", False, STEP_LOOP),
        ("tensorrt", "steps", True, ["backbone to detect"]),  # one graph
        ("tensorrt-rtx", "steps", True, STEP_LOOP),  # a graph inside each engine
    ],
)
def test_a_gpu_is_timed_with_events(library, loop, cuda_graph, engines, engine_bundle, tiny_clips):
    cuda, recorder = FakeCuda(), Recorder()
    backend = _open(engine_bundle, cuda, recorder, library=library, loop=loop, cuda_graph=cuda_graph)
    before_ns = time.perf_counter_ns()
    pending = [backend.submit(tiny_clips[:1]), backend.submit(tiny_clips[1:])]
    for call in pending:
        call.result()
    backend.submit(tiny_clips[:1]).result()  # the first slot's events again
    backend.close()
    assert cuda.leaks == 0
    assert _names(recorder.spans, "GPU") == ["copy", *engines, "download"] * 3
    assert _names(recorder.spans, "GPU upload") == ["upload"] * 3
    on_gpu = sorted((span for span in recorder.spans if span.lane == "GPU"), key=lambda span: span.start_ns)
    assert all(one.end_ns <= other.start_ns + 1000 for one, other in itertools.pairwise(on_gpu))
    assert before_ns < on_gpu[0].start_ns < on_gpu[-1].end_ns < time.perf_counter_ns()
    # The fake computes when the host waits; the engines are where the time goes.
    (wait, *_) = (span for span in recorder.spans if span.waits_for == "GPU")
    first_engines = [span for span in on_gpu[1 : 1 + len(engines)] if span.end_ns <= wait.end_ns]
    assert [span.name for span in first_engines] == engines
    assert min(span.duration_ns for span in first_engines) > 1000


def test_a_gpu_that_nobody_times_makes_no_timed_events(engine_bundle, tiny_clips):
    cuda = FakeCuda()
    backend = _open(engine_bundle, cuda, SILENT)
    backend.submit(tiny_clips[:1]).result()
    assert not cuda.timed
    assert "elapsed_ms" not in cuda.calls


def test_everything_is_freed_where_timing_fails(engine_bundle, tiny_clips):
    cuda = FakeCuda(fail_at="elapsed_ms")
    backend = _open(engine_bundle, cuda, Recorder())
    with pytest.raises(StepError, match="fails at elapsed_ms"):
        backend.submit(tiny_clips[:1]).result()
    backend.close()
    assert cuda.leaks == 0


@pytest.fixture
def step_run(capsys, tmp_path, tiny_bundle):
    def run(video, *words, model=tiny_bundle):
        backend = () if model.is_file() else ("--backend", "onnxruntime")
        common = (video, "--model", model, "--out", tmp_path / "out", "--device", "cpu", "--overwrite", *backend)
        return run_command(main, capsys, *common, "--trace", tmp_path / "trace.json", *words)

    return run


def _stages(path):
    """How often each stage of each thread happened."""
    events = json.loads(path.read_text())["traceEvents"]
    threads = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    found: dict[tuple[str, str], int] = {}
    for event in events:
        if event["ph"] == "X":
            key = (threads[event["tid"]], event["name"])
            found[key] = found.get(key, 0) + 1
    return found


def test_step_run_traces_every_thread(step_run, make_video, tmp_path):
    code, printed, error = step_run(make_video(frames=50), "--every", "0.5", "--loop", "steps")
    assert code == 0, error
    clips = len((tmp_path / "out" / "detections.jsonl").read_text().splitlines())
    stages = _stages(tmp_path / "trace.json")
    for name in ("decode", "convert", "resize"):
        assert stages["reader", name] == 50
    assert stages["reader", "cut"] == clips == 4
    for name in ("upload", *STEP_LOOP, "download"):
        assert stages["inference", name] == clips
    assert stages["inference", "wait for a clip"] == clips + 1
    assert stages["inference", "wait for the writer"] == clips + 1
    for name in ("decode", "convert", "draw"):
        assert stages["writer", name] == 50
    assert stages["writer", "encode"] == 51  # the last for what the encoder held back
    assert stages["writer", "tables"] == clips
    for said in ("step3", "encode", "busy: reader", "overlap: more than one", "bound by: ", "trace: "):
        assert said in printed
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_several_videos_are_one_trace(step_run, make_video, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_video(name, frames=20).rename(tmp_path / "videos" / name)
    (tmp_path / "videos" / "c.mp4").write_bytes(b"")
    done = step_run(tmp_path / "videos", "--no-overlay")
    assert done[0] == 1  # for the third, which is empty; the others are worth their trace
    stages = _stages(tmp_path / "trace.json")
    assert stages["reader", "decode"] == 40
    assert stages["inference", "fused"] == 2
    assert ("writer", "encode") not in stages


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(capsys, make_video, tmp_path):
    (tmp_path / "file").write_text("")
    words = (make_video(), "--model", tmp_path / "none", "--trace", tmp_path / "file" / "trace.json")
    assert_one_error(run_command(main, capsys, *words), "cannot write .*trace.json: a file is in the way")
    words = (make_video(), "--model", tmp_path / "none", "--trace", tmp_path)
    assert_one_error(run_command(main, capsys, *words), "a folder is in the way; name a file")


def _assert_no_new_trace(tmp_path):
    assert (tmp_path / "trace.json").read_text() == "of an earlier run"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not (tmp_path / "out").exists()


def test_a_failing_model_leaves_no_trace(step_run, make_video, tmp_path, monkeypatch):
    (tmp_path / "trace.json").write_text("of an earlier run")
    calls = []
    real = OnnxRuntimeBackend.submit

    def submit(self, frames):
        calls.append(frames)
        if len(calls) == 2:
            raise StepError("the model failed")
        return real(self, frames)

    monkeypatch.setattr(OnnxRuntimeBackend, "submit", submit)
    code, _, error = step_run(make_video(frames=100))
    assert (code, len(calls)) == (1, 2)
    assert "error: the model failed" in error
    _assert_no_new_trace(tmp_path)


def test_a_failing_reader_leaves_no_trace(step_run, make_video, tmp_path, monkeypatch):
    (tmp_path / "trace.json").write_text("of an earlier run")
    from step_runtime.clips import starters

    class FailingBuffer(starters.ClipBuffer):
        def finish(self):
            raise StepError("the reader failed")

    monkeypatch.setattr(starters, "ClipBuffer", FailingBuffer)
    code, _, error = step_run(make_video(frames=60))
    assert code == 1
    assert "error: the reader failed" in error
    _assert_no_new_trace(tmp_path)


def test_a_video_that_breaks_off_keeps_its_trace(step_run, make_video, tmp_path):
    path = make_video(frames=150, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    code, _, error = step_run(path, "--no-overlay")
    assert code == 1
    assert "what came before is kept" in error
    assert _stages(tmp_path / "trace.json")["inference", "fused"] >= 2
