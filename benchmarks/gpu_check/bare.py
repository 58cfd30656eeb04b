"""`make gpu-check` on a machine without network: unpacks the kit of `make gpu-kit` and runs the check with it.

    python3 benchmarks/gpu_check/bare.py [--kit build/gpu-kit] [arguments of gpu_check]

Needs the standard library alone. What the kit holds comes before the packages of the machine, and the project runs from
its folder; nothing is installed.
"""

import argparse
import json
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANIFEST, WHEELS, ARCHIVE = "kit.json", "wheels", "onnxruntime.tar.xz"
_PROJECT = (".", "export", "runtime", "plugins", "benchmarks", "tests")
_CUDA_LIBRARIES = ("libcudart.so.*", "libcublas.so.*", "libcurand.so.*", "libcufft.so.*", "libcudnn.so.*")


class KitError(Exception):
    """Says why there is no kit that can be used, and what to do."""


def main(arguments: list[str]) -> None:
    """Unpacks the kit, and becomes `python -m gpu_check`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--kit", type=Path, default=ROOT / "build/gpu-kit")
    own, others = parser.parse_known_args(arguments)
    try:
        kit = own.kit.resolve()
        places = [unpack(kit)]
        video = kit.with_name(kit.name + "-video")
        if video.is_dir():
            places.append(unpack(video))
    except KitError as error:
        sys.exit(f"error: {error}")
    os.execve(sys.executable, [sys.executable, "-m", "gpu_check", *others], environment(places, dict(os.environ)))


def unpack(kit: Path) -> Path:
    """Unpacks a kit into a folder beside it, once.

    Returns:
        The folder, for PYTHONPATH.

    Raises:
        KitError: no kit, a damaged one or one for another Python, or no space.
    """
    try:
        manifest = (kit / MANIFEST).read_text()
        python, recipe = str(json.loads(manifest)["python"]), str(json.loads(manifest)["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise KitError(f"{kit}: no kit here ({reason}); make gpu-kit on a machine with a network makes it") from error
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != here:
        raise KitError(f"the kit is for Python {python}, this is {here}; make gpu-kit PYTHON_VERSION={here}")
    target = kit.with_name(f"{kit.name}-unpacked")
    if (target / MANIFEST).is_file() and (target / MANIFEST).read_text() == manifest:
        return target
    print(f"unpacking {kit} ({recipe})", file=sys.stderr)
    scratch = None
    try:
        if target.exists() and not (target / MANIFEST).is_file():
            raise KitError(f"{target}: is in the way and no unpacked kit; move it away")
        shutil.rmtree(target, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=kit.parent))
        for wheel in sorted((kit / WHEELS).glob("*.whl")):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(scratch)
        if (kit / ARCHIVE).is_file():
            with tarfile.open(kit / ARCHIVE, "r:xz") as packed_tar:
                packed_tar.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.11.4 and later have it
                packed_tar.extractall(scratch)
        (scratch / MANIFEST).write_text(manifest)
        scratch.rename(target)
    except OSError as error:
        raise KitError(f"{kit}: cannot be unpacked beside itself: {error.strerror or error}; free space") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError, EOFError, ValueError) as error:
        raise KitError(f"{kit}: is damaged ({error}); make it again: make gpu-kit") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def environment(places: list[Path], given: dict[str, str]) -> dict[str, str]:
    """Returns the variables that the check is run with.

    Args:
        places: of unpacked kits, before everything else on the path.
        given: this process's.
    """
    folders = [*map(str, places), *(str((ROOT / folder).resolve()) for folder in _PROJECT)]
    changed = {
        "PYTHONPATH": _joined(*folders, given.get("PYTHONPATH", "")),
        # Of the kit's kernels those that are launched are there, and no others need be loaded.
        "CUDA_MODULE_LOADING": "LAZY",
        # The image's pytest plugins, whatever they are, are not for these tests.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_timeout,xdist.plugin",
    }
    libraries = cuda_library_folders(sys.path)
    if libraries:
        # ONNX Runtime looks for them beside itself, which is in the kit now.
        changed["LD_LIBRARY_PATH"] = _joined(given.get("LD_LIBRARY_PATH", ""), *map(str, libraries))
    return given | changed


def cuda_library_folders(path: list[str]) -> list[Path]:
    """Finds where NVIDIA's wheels keep CUDA and cuDNN, in the folders of Python's path."""
    found = (folder for entry in path for folder in sorted(Path(entry, "nvidia").glob("*/lib")))
    return [folder for folder in found if any(next(folder.glob(name), None) for name in _CUDA_LIBRARIES)]


def _joined(*parts: str) -> str:
    return os.pathsep.join(part for part in parts if part)


if __name__ == "__main__":
    main(sys.argv[1:])
