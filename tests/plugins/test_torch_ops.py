"""The PyTorch operators: their CPU implementation, their fake kernels, and the launch with the host's own kernels."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import host_kernels
import numpy as np
import pytest
import torch
from cuda import bindings
from cuda.bindings import nvrtc as _nvrtc  # noqa: F401 - loads with the real driver module beside it
from step_plugins import PluginError, kernel, launch, roi_align, torch_ops
from step_plugins.nvrtc import nvrtc_version
from step_runtime.backends import torch_kernels

from step.ops.class_nms import class_nms as step_class_nms
from step.ops.roi_align import tube_roi_align as step_roi_align

NMS = {"score_threshold": 0.01, "iou_threshold": 0.4}


def _features(dtype=torch.float32, channels=12):
    return torch.randn(2, 3, channels, 9, 7, generator=torch.Generator().manual_seed(0)).to(dtype)


def _tubes():
    low = 100 * torch.rand(2, 5, 3, 2, generator=torch.Generator().manual_seed(1))
    return torch.cat((low, low + 60), -1)


def _nms_inputs():
    generator = torch.Generator().manual_seed(2)
    low = 100 * torch.rand(2, 40, 2, generator=generator)
    return torch.cat((low, low + 50), -1), torch.rand(2, 40, 6, generator=generator)


@pytest.fixture
def on_the_host():
    """See `host_kernels.in_place_of_the_gpu`."""
    with host_kernels.in_place_of_the_gpu() as launches:
        yield launches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_roi_align_passes_opcheck(dtype):
    torch.library.opcheck(torch_ops.tube_roi_align, (_features(dtype), _tubes(), 7))


def test_class_nms_passes_opcheck():
    torch.library.opcheck(torch_ops.class_nms, (*_nms_inputs(), 0.01, 0.4))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3)])
def test_roi_align_on_the_cpu_is_steps(dtype, tolerance):
    found = torch_ops.tube_roi_align(_features(dtype), _tubes(), 7)
    expected = step_roi_align(_features(), _tubes(), pool_size=7)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= tolerance


def test_class_nms_on_the_cpu_is_steps():
    assert torch.equal(torch_ops.class_nms(*_nms_inputs(), 0.01, 0.4), step_class_nms(*_nms_inputs(), **NMS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("channels", [12, 7, 70])
def test_roi_align_is_launched_with_the_arguments_that_the_kernel_takes(dtype, channels, on_the_host):
    features, tubes = _features(dtype, channels), _tubes()
    found = torch_ops.tube_roi_align_cuda(features, tubes, 7)
    expected = torch_ops.tube_roi_align(features, tubes, 7)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3 if dtype == torch.float16 else 0)
    ((launched, grid, stream),) = on_the_host
    assert grid == (-(-channels // roi_align.TACTICS[1].channels) * 5, 3, 2)
    assert stream == 77
    assert launched.defines["CHANNELS_LAST"] == "1"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_roi_align_of_linear_features(dtype, on_the_host):
    """The other layout that TensorRT may choose: the same values up to the order of the sums."""
    features, tubes = _features(dtype), _tubes()
    found = torch_ops.launch_roi_align(features, tubes, 7, tactic=2, channels_last=False)
    expected = torch_ops.tube_roi_align(features, tubes, 7)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3 if dtype == torch.float16 else 0)
    ((launched, _, _),) = on_the_host
    assert launched.defines["CHANNELS_LAST"] == "0"


def test_channels_last_features_are_not_copied(on_the_host, monkeypatch):
    """As they come out of a channels-last 3D convolution: [B, C, T, H, W] in memory as [B, T, H, W, C]."""
    video = _features().transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
    seen = []
    monkeypatch.setattr(torch_ops, "launch", lambda _kernel, _grid, arguments, **_: seen.append(arguments[0].value))
    torch_ops.tube_roi_align_cuda(video.transpose(1, 2), _tubes(), 7)
    assert seen == [video.data_ptr()]


def test_class_nms_is_launched_with_the_arguments_that_the_kernel_takes(on_the_host):
    assert torch.equal(torch_ops.class_nms_cuda(*_nms_inputs(), 0.01, 0.4), step_class_nms(*_nms_inputs(), **NMS))
    assert [grid for _, grid, _ in on_the_host] == [(6, 2, 1)]


def test_views_that_begin_anywhere(on_the_host):
    """Four floats of a box are loaded at once, so they have to begin at a multiple of 16 bytes."""
    boxes, scores = _nms_inputs()
    memory = torch.empty(boxes.numel() + 1)
    view = memory[1:].view(boxes.shape).copy_(boxes)
    assert view.data_ptr() % 16
    assert torch.equal(torch_ops.class_nms_cuda(view, scores, 0.01, 0.4), step_class_nms(boxes, scores, **NMS))


@pytest.mark.parametrize(
    ("features", "tubes", "message"),
    [
        (_features(torch.float64), _tubes(), "features are torch.float64; they must be float32 or float16"),
        (_features(), _tubes().half(), "tubes_px are torch.float16; they must be float32"),
        (_features()[0], _tubes(), r"features are \[3, 12, 9, 7\]; they must be \[B, T, C, H, W\]"),
        (_features(), _tubes()[:, :, :2], r"tubes_px are \[2, 5, 2, 4\]; they must be \[2, N, 3, 4\]"),
    ],
)
def test_roi_align_refuses(features, tubes, message):
    with pytest.raises(PluginError, match=f"step::TubeRoIAlign: {message}"):
        torch_ops.tube_roi_align(features, tubes, 7)


@pytest.mark.parametrize(
    ("boxes", "scores", "message"),
    [
        (torch.zeros(1, 3, 4), torch.zeros(1, 3, 2).double(), "scores are torch.float64; they must be float32"),
        (torch.zeros(1, 3, 4).half(), torch.zeros(1, 3, 2), "boxes_xyxy are torch.float16; they must be float32"),
        (torch.zeros(1, 3, 4), torch.zeros(3, 2), r"scores are \[3, 2\]; they must be \[B, N, K\]"),
        (torch.zeros(1, 2, 4), torch.zeros(1, 3, 2), r"boxes_xyxy are \[1, 2, 4\]; they must be \[1, 3, 4\]"),
    ],
)
def test_class_nms_refuses(boxes, scores, message):
    with pytest.raises(PluginError, match=f"step::ClassNms: {message}"):
        torch_ops.class_nms(boxes, scores, 0.01, 0.4)


class FakeDriver:
    """What `launch` calls of CUDA's driver."""

    CUresult = SimpleNamespace(CUDA_SUCCESS="success")

    def __init__(self, refused=None, context=1, version=13000):
        self.refused, self.calls = refused, []
        self.values = {"cuCtxGetCurrent": context, "cuDriverGetVersion": version}

    def __getattr__(self, call):
        status = SimpleNamespace(name="CUDA_ERROR_UNSUPPORTED_PTX_VERSION") if call == self.refused else "success"

        def answer(*arguments):
            self.calls.append((call, arguments))
            if call in ("cuLaunchKernel", "cuCtxSetCurrent"):
                return (status,)
            return (status, self.values.get(call, call))

        return answer


@pytest.fixture
def driver(monkeypatch):
    def use(**options):
        fake = FakeDriver(**options)
        launch.loaded_function.cache_clear()
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake)
        monkeypatch.setattr(bindings, "driver", fake)
        return fake

    yield use
    launch.loaded_function.cache_clear()


def _kernel():
    return roi_align.kernel(half=False, channels_last=True, pitch=8, max_cells=8, pool_size=7, tactic=1)


def test_launch(driver):
    fake, made = driver(), _kernel()
    for _ in range(2):
        launch.launch(made, (4, 3, 2), (ctypes.c_void_p(4096), ctypes.c_int(9)), device=0, stream=5)
    calls = [(call, arguments) for call, arguments in fake.calls if call != "cuCtxGetCurrent"]
    names = [call for call, _ in calls]
    assert names == ["cuDriverGetVersion", "cuModuleLoadData", "cuModuleGetFunction"] + ["cuLaunchKernel"] * 2
    assert calls[1][1][0].endswith(b"\0")
    values = ((4096, 9), (ctypes.c_void_p, ctypes.c_int))
    assert fake.calls[-1][1] == ("cuModuleGetFunction", 4, 3, 2, made.threads, 1, 1, 0, 5, values, 0)


def test_a_thread_that_is_new_to_cuda(driver):
    fake = driver(context=0)
    launch.launch(_kernel(), (1, 1, 1), (), device=2, stream=5)
    assert [call for call, _ in fake.calls][:3] == ["cuCtxGetCurrent", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"]
    assert fake.calls[1][1] == (2,)
    assert fake.calls[2][1] == ("cuDevicePrimaryCtxRetain",)


def test_a_kernel_is_compiled_once_in_a_process(driver, monkeypatch, tmp_path):
    """Even where the cache on disk cannot be written."""
    driver()
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEP_PLUGINS_CACHE", str(tmp_path / "file"))
    compiled = []
    monkeypatch.setattr(kernel, "compile_ptx", lambda *arguments: compiled.append(arguments) or b"ptx")
    kernel.ptx_of.cache_clear()
    for _ in range(3):
        launch.launch(_kernel(), (1, 1, 1), (), device=0, stream=5)
    kernel.ptx_of.cache_clear()
    assert len(compiled) == 1


def test_nothing_is_launched_for_an_empty_batch(driver):
    fake = driver()
    launch.launch(_kernel(), (4, 3, 0), (), device=0, stream=5)
    assert not fake.calls


@pytest.mark.parametrize("call", ["cuCtxGetCurrent", "cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel"])
def test_the_drivers_refusal(call, driver):
    driver(refused=call)
    of = "" if call == "cuCtxGetCurrent" else " of step_tube_roi_align"
    message = f"{call}{of} answered CUDA_ERROR_UNSUPPORTED_PTX_VERSION; update the NVIDIA driver"
    with pytest.raises(PluginError, match=message):
        launch.launch(_kernel(), (1, 1, 1), (), device=0, stream=0)


def test_a_driver_older_than_the_ptx(driver):
    """The line says which driver is needed; the PTX, which that driver would refuse, is not even tried."""
    fake = driver(version=12040)
    with pytest.raises(
        PluginError, match=r"needs a driver of CUDA 13\.0 \(580 or later\); this driver is of CUDA 12\.4"
    ):
        launch.launch(_kernel(), (1, 1, 1), (), device=0, stream=0)
    assert "cuModuleLoadData" not in [call for call, _ in fake.calls]


def test_without_cuda_bindings(monkeypatch):
    """PyTorch needs them on a GPU for the kernels alone."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    nvrtc_version.cache_clear()
    not_compiled_yet = roi_align.kernel(half=True, channels_last=False, pitch=8, max_cells=8, pool_size=3, tactic=2)
    with pytest.raises(PluginError, match="^cuda-bindings is not installed"):
        launch.load(not_compiled_yet, device=0)


def test_steps_operators_run_the_kernels_on_a_gpu():
    """Registered in a process of its own, because that cannot be taken back."""
    code = """
import contextlib
import torch
from step_runtime.backends import torch_kernels
names = ("step::tube_roi_align", "step::class_nms")
has = lambda: [torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA") for name in names]
assert has() == [False, False]
torch_kernels.load = lambda kernel, device: None
torch.cuda.device, torch.cuda.current_device = lambda device: contextlib.nullcontext(), lambda: 0
assert torch_kernels.use_kernels("cuda") is None
assert torch_kernels.use_kernels("cuda") is None
assert has() == [True, True]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_steps_operators_choose(on_the_host):
    features, tubes, nms = _features(), _tubes(), _nms_inputs()
    assert torch.equal(torch_kernels.class_nms_on_gpu(*nms, 0.01, 0.4), step_class_nms(*nms, **NMS))
    torch_kernels.roi_align_on_gpu(features, tubes, 7)
    assert len(on_the_host) == 2
    # what the kernels are not made for goes through the matrix products
    for other, pool_size in ((features.double(), 7), (features.bfloat16(), 7), (features, 9)):
        found = torch_kernels.roi_align_on_gpu(other, tubes, pool_size)
        assert torch.equal(found, step_roi_align(other, tubes, pool_size=pool_size))
    many = torch.zeros(1, 1025, 4), torch.zeros(1, 1025, 1)
    many[0][0, :, 2:] = 10
    many[1][0, 3] = 1
    assert torch_kernels.class_nms_on_gpu(*many, 0.01, 0.4).argmax() == 3
    assert len(on_the_host) == 2


@pytest.mark.parametrize("reason", ["NVRTC is not installed", "cuModuleLoadData of step_class_nms answered ..."])
def test_where_the_kernels_cannot_be_used_all_stays_as_it_was(reason, on_the_host, monkeypatch):
    def refuse(_kernel, *, device):
        assert device == 0
        raise PluginError(reason)

    monkeypatch.setattr(torch_kernels, "load", refuse)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.library, "register_kernel", lambda *_: pytest.fail("registered"))
    assert torch_kernels.use_kernels("cuda:0") == reason


def test_no_boxes(on_the_host):
    boxes, scores = torch.zeros(2, 0, 4), torch.zeros(2, 0, 3)
    assert torch_ops.class_nms(boxes, scores, 0.01, 0.4).shape == (2, 0, 3)
    assert torch_ops.class_nms_cuda(boxes, scores, 0.01, 0.4).shape == (2, 0, 3)
    assert torch_ops.tube_roi_align_cuda(_features(), torch.zeros(2, 0, 3, 4), 7).shape == (2, 0, 12, 3, 7, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: torch_ops.tube_roi_align(_features(), _tubes(), 9), "pool_size is 9; it can be 1 to 8"),
        (lambda: torch_ops.tube_roi_align(_features(), _tubes(), 0), "pool_size is 0"),
        (lambda: torch_ops.class_nms(*_nms_inputs(), -1.0, 0.4), "score_threshold is -1.0"),
        (
            lambda: torch_ops.class_nms(torch.zeros(1, 1025, 4), torch.zeros(1, 1025, 1), 0.1, 0.4),
            "there are 1025 boxes",
        ),
    ],
)
def test_limits_are_the_same_on_the_cpu(call, message):
    with pytest.raises(PluginError, match=message):
        call()


def test_gradients_take_the_differentiable_form():
    features = _features().requires_grad_()
    step_roi_align(features, _tubes(), pool_size=7).sum().backward()
    assert features.grad is not None
    assert np.isfinite(features.grad.numpy()).all()
