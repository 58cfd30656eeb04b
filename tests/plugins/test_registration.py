"""When the plugins can be used, and the reason when they cannot."""

from types import SimpleNamespace

import pytest
from step_plugins import PluginError, driver, find_problem, register, registration


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
        (_tensorrt("10.8.0.43"), "tensorrt 10.8.0.43 has no plugins compiled ahead of time; install 10.15 or later"),
        (
            SimpleNamespace(__name__="tensorrt", __version__="10.15.1.29"),
            "tensorrt 10.15.1.29 has no plugins compiled ahead of time; install 10.15 or later",
        ),
        (
            _tensorrt("10.9.0.34"),
            "tensorrt 10.9.0.34 can crash when a process uses a second plugin; install 10.15 or later",
        ),
        (
            _tensorrt("10.14.1.48.post1"),
            "tensorrt 10.14.1.48.post1 can crash when a process uses a second plugin; install 10.15 or later",
        ),
    ],
)
def test_libraries_without_them(trt, problem, installed):
    assert find_problem(trt) == problem
    with pytest.raises(PluginError, match=problem):
        register(trt)


@pytest.mark.parametrize(
    ("version", "numpy", "refused"),
    [
        ("10.15.1.29", "2.4.0", True),
        ("11.1.0.106", "2.10.0rc1", True),
        ("11.1.0.106", "3.0.0", True),
        ("10.15.1.29", "2.3.5", False),
        ("11.1.0.106", "1.26.4", False),
        ("11.2.1.2", "2.4.6", False),
    ],
)
def test_tensorrt_beside_a_newer_numpy(version, numpy, refused, installed, monkeypatch):
    """There NVIDIA's own code turns an array of one attribute into a number, which NumPy allows no more."""
    monkeypatch.setattr(registration.np, "__version__", numpy)
    problem = find_problem(_tensorrt(version))
    assert problem == (
        f"the plugins of tensorrt {version} do not work with NumPy {numpy}; "
        "pip install 'numpy<2.4', or install tensorrt 11.2 or later"
        if refused
        else None
    )


def test_a_driver_older_than_the_kernels(installed, monkeypatch):
    monkeypatch.setattr(driver, "driver_cuda_version", lambda: (12, 4))
    problem = find_problem(_tensorrt())
    assert problem.startswith("the kernels' PTX is of version ")
    assert problem.endswith("this driver is of CUDA 12.4: update it, or pip install 'step-trt[tensorrt-cu12]'")


def test_an_nvrtc_that_compiles_nothing(installed, monkeypatch):
    """It is found, but not the library that it opens when it compiles."""

    def fail(self):
        raise PluginError("class_nms.cu does not compile")

    monkeypatch.setattr(registration.class_nms.Kernel, "ptx", fail)
    assert find_problem(_tensorrt()) == "class_nms.cu does not compile"


@pytest.mark.parametrize("version", ["11.2rc1", "11.2.0rc1", "10.15.0.post1", "v11.4.0", "12"])
def test_versions_of_every_form(version, installed, monkeypatch):
    monkeypatch.setattr(registration.np, "__version__", "2.3rc1")
    assert find_problem(_tensorrt(version)) is None


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
