"""Compiling to PTX without a GPU, the cache, and what ptxas makes of every variant."""

import functools
import hashlib
import re
import shutil
import subprocess
import sys

import pytest
from cuda import bindings
from plugin_resources import ARCHITECTURES, resources, variants
from step_plugins import PluginError, class_nms, nvrtc, roi_align

KERNELS = variants()
PARAMETERS = {  # pointers are 64 bits, sizes 32
    roi_align.ENTRY: ["u64", "u64", "u32", "u32", "u32", "u32", "u32", "u32", "u64"],
    class_nms.ENTRY: ["u64", "u64", "u32", "u32", "u64"],
}
A_DEFINE = {"THREADS": "64", "MAX_BOXES": "32", "SCORE_THRESHOLD": "0.01f", "IOU_THRESHOLD": "0.4f"}


@functools.cache
def _ptx(name):
    return KERNELS[name].ptx()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STEP_PLUGINS_CACHE", str(tmp_path / "ptx"))
    return tmp_path / "ptx"


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_variant_compiles_for_compute_80(kernel):
    text = kernel.ptx().decode()
    assert "\n.target sm_80\n" in text
    assert re.findall(r"\.entry (\w+)\(", text) == [kernel.entry]
    parameters = text.split(".entry", 1)[1].split(")", 1)[0]
    assert re.findall(r"\.param \.(?:align \d+ )?(?:\.ptr[^.]*)?\.?(u64|u32)", parameters) == PARAMETERS[kernel.entry]
    assert f".maxntid {kernel.threads}" in text


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas (of the CUDA toolkit) is not here")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_resources(architecture):
    """No spills, at most 64 registers and 48 KB of shared memory, for every variant."""
    for name, kernel in KERNELS.items():
        used = resources(_ptx(name), architecture)
        assert used["spilled_bytes"] == 0, name
        assert used["registers"] <= 64, name
        assert used["shared_bytes"] <= 48 * 1024, name
        assert used["registers"] * kernel.threads <= 65536


def test_loads_of_aligned_features_are_16_bytes():
    for half in ("fp16 HWC8", "fp32 HWC"):
        text = _ptx(f"roi_align {half} 1").decode()
        assert re.search(r"ld\.global(\.nc)?\.(v4\.[bfu]32|v2\.[bu]64|v8\.[bu]16)", text), half


def test_the_cache_is_used(cache_folder, monkeypatch):
    first = nvrtc.compile_ptx("class_nms.cu", A_DEFINE)
    assert len(list(cache_folder.iterdir())) == 1
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert nvrtc.compile_ptx("class_nms.cu", A_DEFINE) == first
    with pytest.raises(PluginError, match="cuda-bindings is not installed"):  # nothing can be compiled here
        nvrtc.compile_ptx("class_nms.cu", {**A_DEFINE, "THREADS": "128"})


@pytest.mark.parametrize("damage", [b"", b"garbage", b"// sha256 0\n.version 9.0", None])
def test_a_corrupt_cache_entry_is_rebuilt(damage, cache_folder):
    first = nvrtc.compile_ptx("class_nms.cu", A_DEFINE)
    (entry,) = cache_folder.iterdir()
    good = entry.read_bytes()
    entry.write_bytes(good[:-100] if damage is None else damage)
    assert nvrtc.compile_ptx("class_nms.cu", A_DEFINE) == first
    assert entry.read_bytes() == good


def test_every_input_has_its_own_cache_entry(cache_folder, tmp_path, monkeypatch):
    nvrtc.compile_ptx("class_nms.cu", A_DEFINE)
    nvrtc.compile_ptx("class_nms.cu", {**A_DEFINE, "THREADS": "128"})
    sources = shutil.copytree(nvrtc.SOURCES, tmp_path / "cuda")
    with (sources / "maths.cuh").open("a") as header:
        header.write("// changed\n")
    monkeypatch.setattr(nvrtc, "SOURCES", sources)
    nvrtc.compile_ptx("class_nms.cu", A_DEFINE)
    assert len(list(cache_folder.iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEP_PLUGINS_CACHE", str(tmp_path / "file" / "ptx"))
    assert b".entry step_class_nms" in nvrtc.compile_ptx("class_nms.cu", A_DEFINE)


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("STEP_PLUGINS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert nvrtc.cache_folder() == tmp_path / "step-trt" / "ptx"


def test_a_user_without_a_home(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    for name in ("STEP_PLUGINS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nvrtc.Path, "home", nowhere)
    assert nvrtc.cache_folder() is None  # and none is taken from a place that others write to
    nvrtc.compile_ptx("class_nms.cu", A_DEFINE)


@pytest.mark.parametrize("mode", [0o770, 0o777])
def test_a_folder_that_others_can_write_to(cache_folder, mode):
    """What lies there may be anybody's."""
    ptx = nvrtc.compile_ptx("class_nms.cu", A_DEFINE)
    assert cache_folder.stat().st_mode & 0o777 == 0o700
    (cached,) = cache_folder.iterdir()
    foreign = b"// not ours"
    cached.write_bytes(b"// sha256 " + hashlib.sha256(foreign).hexdigest().encode() + b"\n" + foreign)
    assert nvrtc.compile_ptx("class_nms.cu", A_DEFINE) == foreign
    cache_folder.chmod(mode)
    assert nvrtc.compile_ptx("class_nms.cu", A_DEFINE) == ptx
    assert cached.read_bytes().endswith(foreign)  # nor is anything put there
    cache_folder.chmod(0o700)
    real = cache_folder.rename(cache_folder.with_name("real"))
    cache_folder.symlink_to(real)
    assert nvrtc.compile_ptx("class_nms.cu", A_DEFINE) == ptx


def test_a_source_that_does_not_compile(cache_folder):
    with pytest.raises(PluginError, match="class_nms.cu does not compile with .*THREADS"):
        nvrtc.compile_ptx("class_nms.cu", {**A_DEFINE, "MAX_BOXES": "many"})
    assert not cache_folder.exists()


def test_a_library_that_another_package_loaded_first(cache_folder):
    code = f"""
import ctypes
from pathlib import Path
import nvidia.cu13
from step_plugins import nvrtc
ctypes.CDLL(str(next(Path(nvidia.cu13.__path__[0]).glob("lib/libnvrtc.so.*"))))
nvrtc.compile_ptx("class_nms.cu", {A_DEFINE})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(list(cache_folder.glob("*.ptx"))) == 1


def test_without_nvrtc(monkeypatch):
    class NoLibrary:
        @staticmethod
        def nvrtcVersion():  # noqa: N802 - the library's name
            raise RuntimeError("Failure finding libnvrtc.so\nmore")

    nvrtc.nvrtc_version.cache_clear()
    monkeypatch.setattr(bindings, "nvrtc", NoLibrary)
    with pytest.raises(PluginError, match="^NVRTC is not installed .*libnvrtc was not found.*; pip install"):
        nvrtc.nvrtc_version()
    nvrtc.nvrtc_version.cache_clear()


def test_without_cuda_bindings(monkeypatch):
    nvrtc.nvrtc_version.cache_clear()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(PluginError, match=r"^cuda-bindings is not installed .*pip install 'step-trt\[plugins\]'"):
        nvrtc.nvrtc_version()
