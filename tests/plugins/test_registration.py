"""When the plugins can be used, and the reason when they cannot."""

from types import SimpleNamespace

import pytest
from step_plugins import PluginError, find_problem, register, registration


def _tensorrt(version="11.4.0.106", **changes):
    return SimpleNamespace(__name__="tensorrt", __version__=version, QuickPluginCreationRequest=object(), **changes)


@pytest.fixture
def installed(monkeypatch):
    """Pretends which wheels are installed."""

    def use(*wheels):
        found = [SimpleNamespace(name=name, version=version) for name, version in wheels]
        monkeypatch.setattr(registration.metadata, "distributions", lambda: found)

    use(("tensorrt_cu13_bindings", "11.4.0.106"))
    return use


def test_nothing_is_wrong(installed):
    assert find_problem(_tensorrt()) is None


@pytest.mark.parametrize(
    ("trt", "problem"),
    [
        (SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7.1.116"), "tensorrt-rtx takes no plugins"),
        (_tensorrt("10.7.0.1"), "tensorrt 10.7.0.1 has no plugins compiled ahead of time; install 10.8 or later"),
        (
            SimpleNamespace(__name__="tensorrt", __version__="10.9.0.34"),
            "tensorrt 10.9.0.34 has no plugins compiled ahead of time; install 10.8 or later",
        ),
    ],
)
def test_libraries_without_them(trt, problem, installed):
    assert find_problem(trt) == problem
    with pytest.raises(PluginError, match=problem):
        register(trt)


def test_nvrtc_of_another_cuda_major(installed):
    installed(("numpy", "2.0"), ("tensorrt-cu12-libs", "10.8.0.43"), ("tensorrt_cu12_bindings", "11.4.0.106"))
    problem = find_problem(_tensorrt())
    assert problem.startswith(
        "NVRTC is of CUDA 13, tensorrt 11.4.0.106 of CUDA 12; pip install 'step-trt[plugins-cu12]'"
    )


def test_tensorrt_that_no_wheel_installed(installed):
    """A tar file or a container says nothing of its CUDA; the PTX is the same anyway."""
    installed(("tensorrt", "11.4.0.106"))
    assert find_problem(_tensorrt()) is None


def test_without_nvrtc(installed, monkeypatch):
    def missing():
        raise PluginError("NVRTC is not installed (no libnvrtc); pip install 'step-trt[plugins]'")

    monkeypatch.setattr(registration, "nvrtc_version", missing)
    assert find_problem(_tensorrt()) == "NVRTC is not installed (no libnvrtc); pip install 'step-trt[plugins]'"
