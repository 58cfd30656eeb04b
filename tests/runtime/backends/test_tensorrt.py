"""Runs the TensorRT backend on a GPU that records its calls and computes with ONNX Runtime."""

import contextlib
import itertools
import shutil
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import GPU, FakeContext, FakeCuda, FakeRuntimeConfig, FakeTensorRT, add_fake_engines
from step_runtime import Detector
from step_runtime.backends import gpus
from step_runtime.backends.onnxruntime import OnnxRuntimeBackend
from step_runtime.backends.tensorrt import LibraryOnGpu, TensorRTBackend

from step import StepError
from step.bundles.libraries import library_logger
from step.bundles.manifest import read_bundle

STEP_LOOP = ["backbone", "step1", "step2", "step3", "detect"]


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    copy = tmp_path_factory.mktemp("engines") / "bundle"
    shutil.copytree(tiny_bundle, copy)
    add_fake_engines(copy)
    add_fake_engines(copy, "tensorrt-rtx")
    return copy


@pytest.fixture(scope="module")
def expected(tiny_bundle, tiny_clips):
    backend = OnnxRuntimeBackend(
        tiny_bundle, read_bundle(tiny_bundle), loop="fused", num_steps=3, device="cpu", threads=None
    )
    results = [backend.submit(tiny_clips[index : index + 1]).result() for index in (0, 1)]
    assert np.abs(results[0].tubes_px - results[1].tubes_px).max() > 1, "the clips cannot be told apart"
    return results


def _open(bundle, cuda, *, library="tensorrt", loop="fused", num_steps=3, refuse_capture=False, cuda_graph=True):
    trt = FakeTensorRT(cuda, refuse_capture=refuse_capture)
    backend = TensorRTBackend(
        LibraryOnGpu(name=library, trt=trt, cuda=cuda, gpu=GPU),
        bundle,
        read_bundle(bundle),
        loop=loop,
        num_steps=num_steps,
        cuda_graph=cuda_graph,
    )
    return backend, trt


def _assert_same(found, expected):
    for name in ("scores", "counts", "tubes_px"):  # the order of rows with equal scores is rounding's
        assert np.abs(getattr(found, name) - getattr(expected, name)).max() <= 1e-3, name


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_gives_what_the_graphs_give(loop, library, cuda_graph, bundle, tiny_clips, expected):
    cuda = FakeCuda()
    backend, _ = _open(bundle, cuda, library=library, loop=loop, cuda_graph=cuda_graph)
    for index in (0, 1, 0):
        _assert_same(backend.submit(tiny_clips[index : index + 1]).result(), expected[index])
    backend.close()
    assert cuda.leaks == 0


def test_two_clips_under_way_do_not_touch_each_other(bundle, tiny_clips, expected):
    backend, _ = _open(bundle, FakeCuda())
    first, second = backend.submit(tiny_clips[:1]), backend.submit(tiny_clips[1:])
    _assert_same(first.result(), expected[0])
    third = backend.submit(tiny_clips[:1])
    _assert_same(second.result(), expected[1])
    _assert_same(third.result(), expected[0])


def test_results_that_nobody_asks_for_do_no_harm(bundle, tiny_clips, expected):
    backend, _ = _open(bundle, FakeCuda())
    for _ in range(3):
        backend.submit(tiny_clips[:1])
    _assert_same(backend.submit(tiny_clips[1:]).result(), expected[1])


@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_a_clip_after_warm_up(loop, bundle, tiny_clips):
    """It takes one upload, one graph, one download per result, one wait of the host, and nothing in between."""
    cuda = FakeCuda()
    backend, _ = _open(bundle, cuda, loop=loop)
    backend.submit(tiny_clips[:1]).result()
    cuda.calls.clear()
    backend.submit(tiny_clips[:1]).result()
    downloads = ["download"] * 6
    before = ["active", "upload", "record", "wait", "copy", "launch"]
    assert cuda.calls == [*before, *downloads, "record", "active", "synchronize_event"]


@pytest.mark.parametrize(("loop", "names"), [("fused", ["fused"]), ("steps", STEP_LOOP)])
def test_the_graph_is_recorded_once_after_a_warm_up(loop, names, bundle, tiny_clips):
    cuda = FakeCuda()
    backend, _ = _open(bundle, cuda, loop=loop)
    cuda.calls.clear()
    for _ in range(3):
        backend.submit(tiny_clips[:1]).result()
    runs = [f"run {name}" for name in names]
    first = cuda.calls[cuda.calls.index(runs[0]) :]
    warm_up = [*runs, "synchronize_stream", "begin_capture", *runs, "end_capture"]
    assert first[: len(warm_up)] == warm_up
    assert cuda.calls.count("launch") == 3
    assert cuda.calls.count("begin_capture") == 1


def test_rtx_records_its_own_graph(bundle, tiny_clips):
    """Every engine is launched by itself, with the library's strategy set, and nothing waits in between."""
    cuda = FakeCuda()
    backend, trt = _open(bundle, cuda, library="tensorrt-rtx", loop="steps")
    backend.submit(tiny_clips[:1]).result()
    config = trt.contexts[0].made_with
    assert isinstance(config, FakeRuntimeConfig)
    assert config.cuda_graph_strategy == trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    assert config.strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
    cuda.calls.clear()
    backend.submit(tiny_clips[:1]).result()
    runs = [f"run {name}" for name in STEP_LOOP]
    assert cuda.calls[5:10] == runs
    assert not {"launch", "begin_capture", "allocate"} & set(cuda.calls)
    assert [call for call in cuda.calls if call.startswith("synchronize")] == ["synchronize_event"]


def test_rtx_keeps_what_it_compiled_in_the_bundle(bundle, tiny_clips):
    backend, trt = _open(bundle, FakeCuda(), library="tensorrt-rtx")
    backend.submit(tiny_clips[:1]).result()
    backend.close()
    file = bundle / "engines/tensorrt-rtx-00000000/fused.sm89.cache"
    assert file.read_bytes() == b"compiled kernels"
    _, trt = _open(bundle, FakeCuda(), library="tensorrt-rtx")
    assert trt.loaded_caches == [b"compiled kernels"]


def test_what_cannot_be_captured_runs_without(bundle, tiny_clips, expected):
    cuda = FakeCuda()
    backend, _ = _open(bundle, cuda, refuse_capture=True)
    _assert_same(backend.submit(tiny_clips[:1]).result(), expected[0])
    assert "without a CUDA graph: fused failed on the GPU: cannot be captured" in backend.device
    assert "launch" not in cuda.calls
    backend.close()
    assert cuda.leaks == 0


def test_fewer_steps(bundle, tiny_bundle, tiny_clips):
    backend, _ = _open(bundle, FakeCuda(), loop="steps", num_steps=2)
    with Detector.open(tiny_bundle, "onnxruntime", loop="steps", num_steps=2) as graphs:
        _assert_same(backend.submit(tiny_clips[:1]).result(), graphs.detect(tiny_clips[:1]))


@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_a_profile_of_batches(loop, tiny_bundle, tiny_clips, expected, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", min_batch=1, opt_batch=2, max_batch=2)
    cuda = FakeCuda()
    backend, _ = _open(tmp_path / "b", cuda, loop=loop)
    pair = backend.submit(tiny_clips).result()
    for index in (0, 1):
        _assert_same(type(pair)(*(rows[index : index + 1] for rows in pair)), expected[index])
    _assert_same(backend.submit(tiny_clips[:1]).result(), expected[0])
    with pytest.raises(
        StepError, match=r"take 1 to 2 clips a call, not 3; .* --min-batch 1 --opt-batch 2 --max-batch 3"
    ):
        backend.submit(np.concatenate((tiny_clips, tiny_clips[:1])))
    with Detector(backend) as detector:  # which cuts to what the engines take
        three = detector.detect(np.concatenate((tiny_clips, tiny_clips[:1])))
    _assert_same(type(three)(*(rows[2:] for rows in three)), expected[0])


def _profile_of(most, tiny_bundle, tmp_path, **options):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", min_batch=1, opt_batch=1, max_batch=most)
    cuda = FakeCuda()
    backend, trt = _open(tmp_path / "b", cuda, **options)
    return cuda, backend, trt


@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_alternating_batches_are_prepared_for_once(loop, tiny_bundle, tiny_clips, expected, tmp_path):
    """Each number of clips takes one warm-up and one graph; after that nothing but its launch."""
    cuda, backend, _ = _profile_of(2, tiny_bundle, tmp_path, loop=loop)
    for clips in (tiny_clips[:1], tiny_clips):
        backend.submit(clips).result()
    cuda.calls.clear()
    pending = [backend.submit(clips) for clips in (tiny_clips[1:], tiny_clips)]
    _assert_same(pending[0].result(), expected[1])
    pending.append(backend.submit(tiny_clips[:1]))
    pair = pending[1].result()
    for index in (0, 1):
        _assert_same(type(pair)(*(rows[index : index + 1] for rows in pair)), expected[index])
    _assert_same(pending[2].result(), expected[0])
    assert cuda.calls.count("launch") == 3
    assert not {"begin_capture", "synchronize_stream", "allocate"} & set(cuda.calls)
    assert not [call for call in cuda.calls if call.startswith("run ")]
    backend.close()
    assert cuda.leaks == 0


def test_a_graph_s_context_is_left_alone(tiny_bundle, tiny_clips, tmp_path):
    """TensorRT: a graph uses the context that it was recorded from, which must not be given another shape."""
    cuda, backend, trt = _profile_of(2, tiny_bundle, tmp_path)
    backend.submit(tiny_clips[:1]).result()
    (first,) = trt.contexts
    backend.submit(tiny_clips).result()
    (_, second) = trt.contexts
    assert (first.batch, second.batch) == (1, 2)
    assert (first.scratch, first.addresses) == (second.scratch, second.addresses)
    cuda.calls.clear()
    backend.submit(tiny_clips[:1]).result()
    assert cuda.calls.count("launch") == 1
    assert trt.contexts == [first, second]
    assert (first.batch, second.batch) == (1, 2)


def test_so_many_batches_are_kept_and_no_more(tiny_bundle, tiny_clips, expected, tmp_path):
    cuda, backend, trt = _profile_of(6, tiny_bundle, tmp_path)
    clips = np.concatenate([tiny_clips] * 3)
    for batch in (1, 2, 3, 4, 1, 5, 6):  # 2 and 3 were not used for longest
        backend.submit(clips[:batch]).result()
    assert len(cuda.graphs) == len(trt.contexts) == 4
    cuda.calls.clear()
    _assert_same(backend.submit(clips[:1]).result(), expected[0])
    assert "begin_capture" not in cuda.calls
    backend.submit(clips[:2]).result()
    assert cuda.calls.count("begin_capture") == 1
    backend.close()
    assert cuda.leaks == 0


def test_shapes_are_set_once_for_each_batch(tiny_bundle, tiny_clips, tmp_path, monkeypatch):
    """A context that a graph was recorded from is never touched again, so that nothing of it can be refused."""
    shaped: list[int] = []
    real = FakeContext.set_input_shape

    def set_input_shape(self, name, shape):
        shaped.append(shape[0])
        return real(self, name, shape)

    monkeypatch.setattr(FakeContext, "set_input_shape", set_input_shape)
    _, backend, _ = _profile_of(2, tiny_bundle, tmp_path)
    for clips in (tiny_clips[:1], tiny_clips, tiny_clips[:1], tiny_clips):
        backend.submit(clips).result()
    assert shaped == [1, 2]


@pytest.mark.parametrize("moment", ["begin_capture", "synchronize_stream"])
def test_an_interrupt_while_it_prepares(moment, tiny_bundle, tiny_clips, expected, tmp_path, monkeypatch):
    """Nothing goes on recording or stays, and the next call is as good as the first."""
    cuda, backend, _ = _profile_of(2, tiny_bundle, tmp_path)
    real = FakeContext.execute_async_v3

    def interrupted(self, stream):
        if (stream in cuda.recording) == (moment == "begin_capture"):
            raise KeyboardInterrupt
        return real(self, stream)

    with monkeypatch.context() as during:
        during.setattr(FakeContext, "execute_async_v3", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.submit(tiny_clips[:1])
    assert not cuda.recording
    _assert_same(backend.submit(tiny_clips[:1]).result(), expected[0])
    backend.close()
    assert cuda.leaks == 0


def test_each_batch_has_its_own_reason_for_running_without_a_graph(tiny_bundle, tiny_clips, tmp_path):
    _, backend, trt = _profile_of(2, tiny_bundle, tmp_path, refuse_capture=True)
    backend.submit(tiny_clips[:1]).result()
    trt.refuse_capture = False
    backend.submit(tiny_clips).result()
    assert "without a CUDA graph" not in backend.device
    backend.submit(tiny_clips[:1]).result()
    assert "without a CUDA graph: fused failed on the GPU: cannot be captured" in backend.device


def test_the_reason_is_that_of_the_call_that_failed(bundle, tiny_clips, monkeypatch):
    """Errors of calls that succeeded, and of other runtimes' calls, are not it."""
    backend, trt = _open(bundle, FakeCuda(), cuda_graph=False)
    logger = library_logger(trt)
    failing: list[bool] = []
    real = FakeContext.execute_async_v3

    def execute(self, stream):
        logger.log(SimpleNamespace(name="ERROR"), "the real reason" if failing else "an older error")
        return real(self, stream) and not failing

    monkeypatch.setattr(FakeContext, "execute_async_v3", execute)
    backend.submit(tiny_clips[:1]).result()
    logger.log(SimpleNamespace(name="ERROR"), "said outside of any call")
    failing.append(True)
    with pytest.raises(StepError, match="fused failed on the GPU: the real reason$"):
        backend.submit(tiny_clips[:1])
    backend.close()


def test_a_later_batch_may_be_captured_again(tiny_bundle, tiny_clips, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", min_batch=1, opt_batch=2, max_batch=2)
    cuda = FakeCuda()
    backend, trt = _open(tmp_path / "b", cuda, refuse_capture=True)
    backend.submit(tiny_clips[:1]).result()
    trt.refuse_capture = False
    backend.submit(tiny_clips).result()
    assert "launch" in cuda.calls
    assert "without a CUDA graph" not in backend.device


def test_a_static_batch_is_filled_up(tiny_bundle, tiny_clips, expected, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    add_fake_engines(tmp_path / "b", min_batch=2, opt_batch=2, max_batch=2)
    backend, _ = _open(tmp_path / "b", FakeCuda())
    with Detector(backend) as detector:
        _assert_same(detector.detect(tiny_clips[:1]), expected[0])


def test_a_run_keeps_two_clips_under_way(bundle, make_video):
    cuda = FakeCuda()
    backend, _ = _open(bundle, cuda)
    with Detector(backend) as detector:
        # Slow enough that the reader is ahead.
        key_frames = list(detector.run(make_video(frames=150), every_s=Fraction(1, 2)))
    with Detector.open(bundle, "onnxruntime", device="cpu") as graphs:
        wanted = list(graphs.run(make_video(frames=150), every_s=Fraction(1, 2)))
    assert [frame.time_s for frame in key_frames] == [frame.time_s for frame in wanted]
    for found, frame in zip(key_frames, wanted, strict=True):
        _assert_same(found.detections, frame.detections)
    order = [call for call in cuda.calls if call in ("upload", "synchronize_event")]
    assert ("upload", "upload") in itertools.pairwise(order), "no clip was started before the last was waited for"
    assert cuda.leaks == 0


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
def test_the_loop_in_two_halves(library, cuda_graph, bundle, tiny_clips, expected):
    cuda = FakeCuda()
    backend, _ = _open(bundle, cuda, library=library, loop="steps", cuda_graph=cuda_graph)
    first = backend.extract(tiny_clips[:1])
    pending = backend.submit_features(first)
    second = backend.extract(tiny_clips[1:])  # while the first is under way
    other = backend.submit_features(second)
    _assert_same(pending.result(), expected[0])
    _assert_same(other.result(), expected[1])
    _assert_same(backend.submit(tiny_clips[1:]).result(), expected[1])  # the whole loop is still there
    assert len(cuda.graphs) == (3 if cuda_graph and library == "tensorrt" else 0)
    cuda.calls.clear()
    backend.submit_features(backend.extract(tiny_clips[:1])).result()
    assert not {"allocate", "allocate_pinned", "begin_capture"} & set(cuda.calls)
    assert [call for call in cuda.calls if call.startswith("synchronize")] == ["synchronize_event"] * 2
    if cuda_graph and library == "tensorrt":
        assert cuda.calls.count("launch") == 2
    else:
        assert [call for call in cuda.calls if call.startswith("run ")] == [f"run {name}" for name in STEP_LOOP]
    backend.close()
    assert cuda.leaks == 0


def test_a_run_that_shares_features(bundle, make_video):
    cuda = FakeCuda()
    backend, _ = _open(bundle, cuda, loop="steps")
    video = make_video(frames=50)
    with Detector(backend) as detector:
        found = list(detector.run(video, every_s=Fraction(1, 3), reuse_backbone=True))
    with Detector.open(bundle, "onnxruntime", loop="steps", device="cpu") as graphs:
        wanted = list(graphs.run(video, every_s=Fraction(1, 3), reuse_backbone=True))
    assert [frame.time_s for frame in found] == [frame.time_s for frame in wanted]
    for key_frame, other in zip(found, wanted, strict=True):
        _assert_same(key_frame.detections, other.detections)
    assert cuda.leaks == 0


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
def test_everything_is_freed_wherever_the_gpu_fails(library, bundle, tiny_clips):
    def use(cuda):
        backend, _ = _open(bundle, cuda, library=library, loop="steps")
        try:
            backend.submit(tiny_clips[:1])
            backend.submit(tiny_clips[:1]).result()
        finally:
            backend.close()

    healthy = FakeCuda()
    use(healthy)
    giving_back = ("free", "free_pinned", "destroy_stream", "destroy_event", "destroy_graph")
    calls = {call for call in healthy.calls if call not in giving_back}
    assert len(calls) >= 15
    for call in sorted(calls):
        cuda = FakeCuda(fail_at=call)
        if call == "end_capture":
            use(cuda)  # runs without a graph
        else:
            with pytest.raises(StepError, match=f"fails at {call}"):
                use(cuda)
        assert cuda.leaks == 0, call


def test_everything_is_freed_wherever_a_half_fails(bundle, tiny_clips):
    def use(cuda):
        backend, _ = _open(bundle, cuda, loop="steps")
        try:
            backend.submit_features(backend.extract(tiny_clips[:1])).result()
        finally:
            backend.close()

    healthy = FakeCuda()
    use(healthy)
    for call in sorted({call for call in healthy.calls if not call.startswith(("free", "destroy"))}):
        cuda = FakeCuda(fail_at=call)
        with contextlib.suppress(StepError):
            use(cuda)
        assert cuda.leaks == 0, call


def test_a_lost_gpu_is_told_once(bundle, tiny_clips):
    """Freeing fails too then; what is told is what failed first."""
    cuda = FakeCuda()
    backend, _ = _open(bundle, cuda)
    backend.submit(tiny_clips[:1]).result()
    pending = backend.submit(tiny_clips[:1])
    cuda.is_lost = True
    with pytest.raises(StepError, match="fails at active"), Detector(backend):
        pending.result()


def test_everything_that_is_missing_is_told_at_once(tiny_bundle, monkeypatch):
    monkeypatch.setattr(gpus, "cuda_driver_is_present", lambda: False)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(StepError) as caught:
        Detector.open(tiny_bundle, "tensorrt")
    message = str(caught.value)
    for part in ("no NVIDIA driver", "pip install 'step-trt[tensorrt]'", "step-build", "`backend` onnxruntime"):
        assert part in message


def test_a_library_that_does_not_start(bundle):
    class Broken(FakeTensorRT):
        def Runtime(self, logger):  # noqa: N802 - the library's name
            logger.log(SimpleNamespace(name="ERROR"), "no CUDA")
            raise TypeError("factory function returned nullptr")

    with pytest.raises(StepError, match=r"tensorrt 11\.4\.0\.106 cannot run here: no CUDA"):
        TensorRTBackend(
            LibraryOnGpu(name="tensorrt", trt=Broken(FakeCuda()), cuda=FakeCuda(), gpu=GPU),
            bundle,
            read_bundle(bundle),
            loop="fused",
            num_steps=3,
        )


def test_an_engine_that_the_library_refuses(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b")
    next((tmp_path / "b/engines/tensorrt-00000000").rglob("fused.engine")).write_bytes(b"nonsense|1")
    cuda = FakeCuda()
    with pytest.raises(StepError, match=r"tensorrt 11\.4\.0\.106 cannot load it: the plan is damaged"):
        _open(tmp_path / "b", cuda)
    assert cuda.leaks == 0
