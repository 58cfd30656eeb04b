import gc
import os
import weakref
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from helpers import ONE_STEP, make_detector
from step_export.bundle_writer import ExportSettings, export_bundle
from step_plugins import PluginError
from step_runtime import Detector
from step_runtime.backends import onnxruntime
from step_runtime.backends.onnxruntime import OnnxRuntimeBackend, open_session
from step_runtime.backends.openvino import OpenVinoBackend
from step_runtime.backends.select import open_backend, open_torch
from step_runtime.backends.torch import TorchBackend

from step import StepError, save_checkpoint
from step.bundles.manifest import DEFAULT_THRESHOLDS, read_bundle
from step.checkpoints.toy_model import FOLDER


def _assert_same(found, expected):
    assert np.array_equal(found.counts, expected.counts)
    assert np.abs(found.scores - expected.scores).max() <= 1e-4
    assert np.abs(found.tubes_px - expected.tubes_px).max() <= 0.05
    assert found.labels.dtype == np.int64


@pytest.fixture(scope="module")
def expected(tiny_detector, tiny_clips):
    return type(tiny_detector.detect(torch.zeros_like(torch.from_numpy(tiny_clips))))(
        *(rows.numpy() for rows in tiny_detector.detect(torch.from_numpy(tiny_clips)))
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_loops_equal_torch(loop, backend, tiny_bundle, tiny_clips, expected):
    with Detector.open(tiny_bundle, backend, loop=loop, device="cpu") as detector:
        assert (detector.backend.name, detector.backend.loop) == (backend, loop)
        assert "CPU" in detector.backend.device
        for _ in range(2):  # the second call finds the buffers of the first
            _assert_same(detector.detect(tiny_clips), expected)
        alone = detector.detect(tiny_clips[1:])
        assert np.abs(alone.scores[0] - expected.scores[1]).max() <= 1e-4


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_threads_are_those_that_the_library_has(backend, tiny_bundle):
    """OpenVINO takes no more than there are CPUs, whatever it is asked for; both take at least one by themselves."""
    usable = len(os.sched_getaffinity(0))
    for asked, most in ((1, 1), (None, usable), (usable + 3, usable if backend == "openvino" else usable + 3)):
        opened = open_backend(tiny_bundle, backend=backend, device="cpu", threads=asked)
        assert 1 <= opened.threads <= most
        opened.close()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_results_are_not_overwritten_by_the_next_call(backend, tiny_bundle, tiny_clips):
    with Detector.open(tiny_bundle, backend, device="cpu") as detector:
        first = detector.detect(tiny_clips[:1])
        kept = first.scores.copy()
        detector.detect(tiny_clips[1:])
        assert np.array_equal(first.scores, kept)


def test_torch_backend(tiny_checkpoint, tiny_clips, expected):
    with Detector.open(tiny_checkpoint, device="cpu") as detector:
        assert detector.backend.name == "torch"
        _assert_same(detector.detect(tiny_clips), expected)


def test_a_kernel_that_the_driver_refuses(tiny_checkpoint, tiny_clips, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PluginError("cuLaunchKernel answered CUDA_ERROR_LAUNCH_FAILED; update the NVIDIA driver")

    backend = TorchBackend(tiny_checkpoint, num_steps=None, device="cpu", threads=None)
    monkeypatch.setattr(backend._detector, "run_step", refuse)
    with pytest.raises(StepError, match="^cuLaunchKernel answered CUDA_ERROR_LAUNCH_FAILED"):
        backend.submit(tiny_clips)


@pytest.mark.parametrize("steps", [1, 2])
def test_fewer_steps(steps, tiny_bundle, tiny_checkpoint, tiny_clips):
    with (
        Detector.open(tiny_bundle, num_steps=steps, device="cpu") as graphs,
        Detector.open(tiny_checkpoint, num_steps=steps, device="cpu") as reference,
    ):
        assert graphs.backend.loop == "steps"
        found = graphs.detect(tiny_clips)
        assert found.tubes_px.shape[2] == 3
        _assert_same(found, reference.detect(tiny_clips))


def test_step_loop_never_copies_to_the_host_between_graphs(tiny_bundle, tiny_clips, monkeypatch):
    """Only the six results are read; what passes between graphs stays an OrtValue."""
    read: list[tuple[int, ...]] = []
    original = ort.OrtValue.numpy
    monkeypatch.setattr(ort.OrtValue, "numpy", lambda self: read.append(tuple(self.shape())) or original(self))
    with Detector.open(tiny_bundle, "onnxruntime", loop="steps", device="cpu") as detector:
        detector.detect(tiny_clips)
        assert len(read) == 6
        buffers = detector.backend._buffers[2]
        before = {name: value.data_ptr() for name, value in buffers.items() if "/" in name}
        detector.detect(tiny_clips)
        assert before == {name: value.data_ptr() for name, value in buffers.items() if "/" in name}


def test_a_fixed_batch_takes_any_number_of_clips(tmp_path):
    detector = make_detector(ONE_STEP)
    save_checkpoint(detector, tmp_path / "model.pth")
    export_bundle(tmp_path / "model.pth", tmp_path / "bundle", ExportSettings(batch=2, graphs="fused", verify=False))
    clips = np.random.RandomState(0).randint(0, 256, (3, 12, 48, 48, 3), np.uint8)
    expected = detector.detect(torch.from_numpy(clips))
    with Detector.open(tmp_path / "bundle", device="cpu") as graphs:
        found = graphs.detect(clips)
    assert np.abs(found.scores - expected.scores.numpy()).max() <= 1e-4


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.zeros((1, 36, 64, 64, 3), np.float32), "dtype float32"),
        (np.zeros((1, 36, 3, 64, 64), np.uint8), "colour channel comes last"),
        (np.zeros((36, 64, 64, 3), np.uint8), r"frames\[None\]"),
        (np.zeros((1, 36, 400, 400, 3), np.uint8), r"expected uint8 \[B, 36, 64, 64, 3\] RGB, got shape"),
        ([[1]], "expected a NumPy array, got list"),
    ],
)
def test_frames_that_are_no_clips(frames, said, tiny_bundle):
    with Detector.open(tiny_bundle, device="cpu") as detector, pytest.raises(ValueError, match=said):
        detector.detect(frames)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_steps": 4}, "`num_steps` is 4; .* exported with 1 to 3"),
        ({"num_steps": 2, "loop": "fused"}, "use `loop` steps, or export with `num_steps` 2"),
        ({"backend": "torch"}, "runs a checkpoint, not a bundle"),
        (
            {"backend": "openvino", "device": "cuda"},
            "`backend` openvino runs on the CPU, not on cuda; give `device` cpu",
        ),
        ({"backend": "trt"}, "`backend` is 'trt'; give auto, tensorrt, .* or torch; did you mean 'tensorrt'"),
        ({"backend": None}, "`backend` is None; give auto"),
        ({"loop": "fusd"}, "`loop` is 'fusd'; give fused or steps; did you mean 'fused'"),
        ({"loop": 1}, "`loop` is 1; give fused or steps$"),
        ({"device": "tpu"}, "`device` is 'tpu'; give auto, cpu, cuda or cuda:N; did you mean 'cpu'"),
        ({"device": "neuron:7"}, "`device` is 'neuron:7'; give auto, cpu, cuda or cuda:N$"),
        ({"device": "cuda0"}, "`device` is 'cuda0'; .*; did you mean 'cuda'"),
        ({"device": "cuda:x"}, "`device` is 'cuda:x'; give"),
        ({"device": 0}, "`device` is 0; give"),
        ({"num_steps": 0}, "`num_steps` is 0; it must be a whole number of at least 1"),
        ({"num_steps": "2"}, "`num_steps` is '2'; it must be a whole number"),
        ({"num_steps": True}, "`num_steps` is True; it must be"),
        ({"threads": 0}, "`threads` is 0; it must be a whole number from 1 to 1024"),
        ({"threads": 10**12}, "`threads` is 1000000000000; it must be"),
        ({"threads": 1.5}, "`threads` is 1.5; it must be"),
    ],
)
def test_bad_choices(arguments, said, tiny_bundle):
    with pytest.raises(StepError, match=said):
        Detector.open(tiny_bundle, **arguments)


def test_a_model_that_is_no_path():
    with pytest.raises(StepError, match="`model` is None; give the path of a bundle or of a checkpoint, or toy"):
        Detector.open(None)


def test_half_opened_detectors_keep_nothing(tiny_bundle, monkeypatch):
    """What was loaded before a graph that cannot be is freed, before the next collection of garbage too."""
    opened = []

    def open_three(*arguments, **options):
        if len(opened) == 3:
            raise StepError("the fourth cannot be loaded")
        session = open_session(*arguments, **options)
        opened.append(weakref.ref(session))
        return session

    monkeypatch.setattr(onnxruntime, "open_session", open_three)
    gc.disable()
    try:
        with pytest.raises(StepError, match="the fourth cannot be loaded"):
            Detector.open(tiny_bundle, "onnxruntime", loop="steps", device="cpu")
    finally:
        gc.enable()
    assert [reference() for reference in opened] == [None] * 3


def test_a_device_that_is_not_there(tiny_bundle):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(StepError, match="this machine has no NVIDIA driver, which CUDA needs; run on the CPU"):
        Detector.open(tiny_bundle, device="cuda")


def test_a_driver_without_cuda_libraries(tiny_bundle, monkeypatch, capfd):
    """The library falls back to the CPU with pages of log; the user gets one line."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(onnxruntime, "cuda_driver_is_present", lambda: True)
    with pytest.raises(StepError, match="could not use CUDA and would run on CPUExecutionProvider"):
        Detector.open(tiny_bundle, device="cuda")
    assert capfd.readouterr() == ("", "")


def test_missing_loop(tmp_path):
    save_checkpoint(make_detector(ONE_STEP), tmp_path / "model.pth")
    export_bundle(tmp_path / "model.pth", tmp_path / "bundle", ExportSettings(graphs="fused", verify=False))
    with pytest.raises(StepError, match="`loop` steps, or `reuse_backbone`, needs graphs that .* has not"):
        Detector.open(tmp_path / "bundle", loop="steps")


def test_a_graph_that_the_library_cannot_load(tiny_bundle, tmp_path):
    manifest = read_bundle(tiny_bundle)
    (tmp_path / "fused.onnx").write_bytes(b"no graph")
    with pytest.raises(StepError, match="cannot load it"):
        OnnxRuntimeBackend(tmp_path, manifest, loop="fused", num_steps=3, device="cpu", threads=1)


def test_a_graph_that_openvino_cannot_load(tiny_bundle, tmp_path):
    (tmp_path / "fused.onnx").write_bytes((tiny_bundle / "detect.onnx").read_bytes()[:-100])
    with pytest.raises(StepError, match="fused.onnx: no ONNX graph that can be read: .*; export"):
        OpenVinoBackend(tmp_path, read_bundle(tiny_bundle), loop="fused", num_steps=3, device="cpu", threads=1)


def test_nothing_at_the_path(tmp_path):
    with pytest.raises(StepError, match="no such bundle"):
        Detector.open(tmp_path / "none")


@pytest.mark.gpu
@pytest.mark.parametrize("loop", ["fused", "steps"])
def test_cuda_equals_torch(loop, tiny_bundle, tiny_clips, expected):
    with Detector.open(tiny_bundle, loop=loop, device="cuda") as detector:
        assert detector.backend.device == "CUDAExecutionProvider"
        found = detector.detect(tiny_clips)
    # TF32 convolutions keep ten bits of the mantissa.
    assert np.abs(found.scores - expected.scores).max() <= 5e-3


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_every_step_in_one_pass(backend, tiny_bundle, tiny_checkpoint, tiny_clips):
    """What each step gives is what a model gives that is opened for so many steps, to the bit."""
    model = tiny_checkpoint if backend == "torch" else tiny_bundle
    with Detector.open(model, backend, loop="steps", device="cpu") as detector:
        assert detector.gives_every_step
        by_step = detector.detect_every_step(tiny_clips[:1])
    assert len(by_step) == 3
    for step, found in enumerate(by_step, 1):
        with Detector.open(model, backend, loop="steps", num_steps=step, device="cpu") as detector:
            for one, other in zip(found, detector.detect(tiny_clips[:1]), strict=True):
                np.testing.assert_array_equal(one, other)


def test_the_fused_graph_gives_the_last_step_only(tiny_bundle, tiny_clips):
    with Detector.open(tiny_bundle, "onnxruntime", loop="fused", device="cpu") as detector:
        assert not detector.gives_every_step
        with pytest.raises(StepError, match="the fused loop of onnxruntime gives the last step only"):
            detector.detect_every_step(tiny_clips[:1])


def test_pytorchs_thresholds(tiny_checkpoint, tiny_clips):
    thresholds = DEFAULT_THRESHOLDS.model_copy(update={"max_detections": 3})
    with Detector(open_torch(tiny_checkpoint, num_steps=1, device="cpu", thresholds=thresholds)) as detector:
        assert detector.detect(tiny_clips).boxes.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_steps": 9}, "; toy was exported with 1 to 3"),
        (
            {"backend": "tensorrt"},
            "toy has no tensorrt engines; export one that has: step-export toy -o BUNDLE --engine",
        ),
        ({"backend": "torch", "loop": "fused"}, "; toy is a checkpoint"),
    ],
)
def test_messages_call_the_packaged_model_toy(arguments, said):
    with pytest.raises(StepError, match=said) as refused:
        open_backend(Path("toy"), **arguments)
    assert str(FOLDER) not in str(refused.value)
