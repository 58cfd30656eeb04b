"""CUDA C++ to PTX with NVRTC, which needs neither a GPU nor a driver.

PTX for compute_80 is compiled for the GPU at hand (Ampere or later) by its driver, when an engine is loaded.

Source: https://docs.nvidia.com/cuda/nvrtc/index.html
"""

import contextlib
import ctypes
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from step_plugins.errors import PluginError

SOURCES = Path(__file__).parent / "cuda"
ARCHITECTURE = "compute_80"
_INSTALL = "pip install 'step-trt[plugins]'"


def compile_ptx(source: str, defines: Mapping[str, str]) -> bytes:
    """Compiles one kernel; the result is kept in `cache_folder` under the hash of all that it depends on.

    Args:
        source: file name in this package's `cuda` folder; its includes are found there too.
        defines: macros and their values.

    Returns:
        PTX text for `ARCHITECTURE`.

    Raises:
        PluginError: NVRTC is not there (see `nvrtc_version`), or the source does not compile.
    """
    options = [f"--gpu-architecture={ARCHITECTURE}", "--std=c++17", "--fmad=false"]
    options += [f"--define-macro={name}={value}" for name, value in sorted(defines.items())]
    folder = cache_folder()
    cached = None if folder is None else folder / f"{_key(source, options)}.ptx"
    ptx = None if cached is None else _read_cache(cached)
    if ptx is None:
        ptx = _compile(source, options)
        if cached is not None:
            _write_cache(cached, ptx)
    return ptx


def cache_folder() -> Path | None:
    """Finds where compiled kernels are kept: $STEP_PLUGINS_CACHE, or in the user's cache; None for users without."""
    named = os.environ.get("STEP_PLUGINS_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "step-trt" / "ptx"
    except RuntimeError:  # a container's user without a home
        return None


@cache
def nvrtc_version() -> tuple[int, int]:
    """Returns the major and minor version of CUDA that NVRTC belongs to.

    Raises:
        PluginError: cuda-bindings or NVRTC is not installed.
    """
    nvrtc = _load()
    try:
        status, major, minor = nvrtc.nvrtcVersion()
    except RuntimeError as error:  # cuda.pathfinder's word for a library that it does not find
        raise PluginError(f"NVRTC is not installed (CUDA's libnvrtc was not found); {_INSTALL}") from error
    _check(nvrtc, status, "nvrtcVersion")
    _load_builtins(f"{major}.{minor}")
    return int(major), int(minor)


def _load() -> Any:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise PluginError(f"cuda-bindings is not installed ({error}); {_INSTALL}") from error
    return nvrtc


def _load_builtins(version: str) -> None:
    """Loads the library that NVRTC opens by its bare name when it compiles, from NVRTC's own folder.

    cuda.pathfinder does so where it loads NVRTC itself, but not where another (ONNX Runtime's CUDA provider, say) did.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError:  # cuda-bindings before 12.9 has no such package
        return
    path = load_nvidia_dynamic_lib("nvrtc").abs_path
    if path is not None:
        builtins = Path(path).resolve().with_name(f"libnvrtc-builtins.so.{version}")
        with contextlib.suppress(OSError):  # found elsewhere, or NVRTC says itself that it is missing
            ctypes.CDLL(str(builtins))


def _compile(source: str, options: list[str]) -> bytes:
    nvrtc_version()
    nvrtc = _load()
    headers = sorted(SOURCES.glob("*.cuh"))
    status, program = nvrtc.nvrtcCreateProgram(
        (SOURCES / source).read_bytes(),
        source.encode(),
        len(headers),
        [header.read_bytes() for header in headers],
        [header.name.encode() for header in headers],
    )
    _check(nvrtc, status, "nvrtcCreateProgram")
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise PluginError(f"{source} does not compile with {' '.join(options)}: {_log(nvrtc, program)}")
        status, size = nvrtc.nvrtcGetPTXSize(program)
        _check(nvrtc, status, "nvrtcGetPTXSize")
        ptx = bytearray(size)
        (status,) = nvrtc.nvrtcGetPTX(program, ptx)
        _check(nvrtc, status, "nvrtcGetPTX")
        return bytes(ptx).rstrip(b"\0")
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _log(nvrtc: Any, program: Any) -> str:
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    return " ".join(log.decode(errors="replace").strip("\0").split())


def _check(nvrtc: Any, status: Any, call: str) -> None:
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise PluginError(f"{call} answered {status.name}; {_INSTALL}")


def _key(source: str, options: list[str]) -> str:
    """Hashes everything that the PTX depends on."""
    digest = hashlib.sha256(repr((source, options, nvrtc_version())).encode())
    for path in (SOURCES / source, *sorted(SOURCES.glob("*.cuh"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_cache(path: Path) -> bytes | None:
    """Reads the PTX behind its own hash in the first line; None where there is none or where it was damaged."""
    if not _is_private(path.parent):
        return None
    try:
        digest, _, ptx = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return ptx if digest == _digest_line(ptx) else None


def _is_private(folder: Path) -> bool:
    """Says whether it is a folder, no link, of this user in which nobody else can put a kernel."""
    if sys.platform == "win32":
        return folder.is_dir()
    try:
        found = folder.lstat()
    except OSError:
        return False
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return is_ours and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write_cache(path: Path, ptx: bytes) -> None:
    """Writes under a temporary name first; a cache that cannot be written is only slower."""
    with contextlib.suppress(OSError):
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        if not _is_private(path.parent):
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(_digest_line(ptx) + b"\n" + ptx)
                file.close()
                Path(file.name).replace(path)
            finally:
                Path(file.name).unlink(missing_ok=True)


def _digest_line(ptx: bytes) -> bytes:
    return b"// sha256 " + hashlib.sha256(ptx).hexdigest().encode()
