"""`make gpu-kit`: the folder that makes `make gpu-check` run on a GPU machine without network; `bare.py` unpacks it.

It holds what an image with Python, PyTorch, torchvision, onnx, NumPy, OpenCV and CUDA's own Python packages may lack:
wheels, and ONNX Runtime's CUDA build without what the check does not use of it. PyAV, larger than the rest of what is
left of 64 MiB, is a second folder.
"""

import hashlib
import importlib.metadata
import io
import json
import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

import gpu_check.bare
import gpu_check.fat_binary
from gpu_check.bare import ARCHIVE, MANIFEST, WHEELS
from gpu_check.fat_binary import drop_kernels
from step.cli import OneLineCommand
from step.errors import StepError
from step.files.atomic import atomic_path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    *("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions"),
    *("click", "rich", "pygments", "markdown-it-py", "mdurl", "filelock", "pyyaml", "nvidia-ml-py"),
    *("lightning-fabric", "lightning-utilities", "packaging"),
    *("pytest", "pluggy", "iniconfig", "pytest-timeout", "pytest-xdist", "execnet"),
    *("onnxscript", "onnx-ir"),
)
"""Needed beside what PyTorch's and onnx's wheels bring along (cuda-bindings, protobuf, ml-dtypes, fsspec, sympy...)."""
VIDEO_PACKAGES = ("av",)
RUNTIME = "onnxruntime-gpu"

# pip takes each of these names literally; a wheel's name says the oldest glibc that it runs on.
_PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)), "manylinux2014_x86_64")
_MIB = 2**20
# Filters that cost the least: 7.7 MB for the module and 6.5 MB for the provider's host code, 8.6 and 7.0 without BCJ.
_FILTERS = ({"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6})
_KEPT_FILES = re.compile(
    r"onnxruntime/(\w+\.py|LICENSE|ThirdPartyNotices\.txt|capi/\w+\.py|capi/onnxruntime_pybind11_state\.[^/]+\.so"
    r"|capi/libonnxruntime_providers_(cuda|shared)\.so)|onnxruntime_gpu-[^/]+\.dist-info/METADATA"
)
_PROVIDER = "libonnxruntime_providers_cuda.so"
# Attention, mixtures of experts and products of quantised matrices, by the words of their mangled names. ONNX's own
# operators are in onnxruntime::cuda and stay, whatever they are called. So does every source file with a kernel of
# another kind: cub::EmptyKernel is in many, and whichever of them was registered for it may be loaded.
_LANGUAGE_MODELS = re.compile(
    r"(?!_ZN11onnxruntime4cuda).*("
    r"flash|[Mm]oe|MoE|3llm|cutlass|[Aa]ttention|kernel_mha|fpA_intB|[Mm]at[Mm]ul|gated_delta|QKV|KVCache|[Qq]uant|paged)"
)


@dataclass(frozen=True)
class Kit:
    """Says what a kit folder holds; it is its `kit.json`.

    Attributes:
        python: major and minor version that its compiled packages are for.
        packages: versions by name.
        runtime: version of ONNX Runtime; None without it.
        architectures: compute capabilities, as 90, that it runs on.
        recipe: changes with the code that makes and unpacks a kit.
    """

    python: str
    packages: dict[str, str]
    runtime: str | None
    architectures: tuple[int, ...]
    recipe: str


@click.command(cls=OneLineCommand)
@click.option("--python", default="3.12", show_default=True, help="Python of the GPU machine, as 3.12.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "build/gpu-kit", help="[default: build/gpu-kit]")
@click.option(
    "--architectures",
    default="80,86,89,90,120",
    show_default=True,
    help="Compute capabilities that ONNX Runtime shall run on; all that its wheel has would be too large.",
)
@click.option("--limit-mib", type=float, default=54.0, show_default=True, help="Largest size of the kit.")
def main(python: str, out: Path, architectures: str, limit_mib: float) -> None:
    """Prepares build/gpu-kit, and build/gpu-kit-video beside it; what is there and current is left as it is."""
    if not re.fullmatch(r"3\.\d+", python):
        raise StepError(f"--python is {python}; give it as 3.12")
    if not re.fullmatch(r"\d+(,\d+)*", architectures):
        raise StepError(f"--architectures is {architectures}; give compute capabilities as 80,90")
    chosen = tuple(map(int, architectures.split(",")))
    console = Console(highlight=False, soft_wrap=True)
    video = out.resolve().parent / f"{out.resolve().name}-video"
    for folder, kit in ((out, plan_kit(python, chosen)), (video, plan_kit(python, video=True))):
        if is_current(folder, kit):
            console.print(f"{folder}: is there and current", markup=False)
        else:
            make_kit(folder, kit, console)
        console.print(f"{folder}: {folder_bytes(folder) / _MIB:.1f} MiB, for Python {python}", markup=False)
    size_mib = folder_bytes(out) / _MIB
    if size_mib > limit_mib:
        raise StepError(f"{out} is {size_mib:.1f} MiB; at most {limit_mib:g} MiB can be carried (--limit-mib)")


def plan_kit(python: str, architectures: tuple[int, ...] = (), *, video: bool = False) -> Kit:
    """Plans the kit for `make_kit`: versions of constraints.txt, or else those that are installed here.

    Args:
        python: as "3.12".
        architectures: see `Kit`.
        video: the folder of PyAV alone.

    Raises:
        StepError: a package that is neither named there nor installed here.
    """
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))

    def version(name: str) -> str:
        try:
            return pinned.get(name) or importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise StepError(f"{name} is not installed here, so its version is not known; run: make gpu-kit") from error

    digest = hashlib.sha256()
    for module in (sys.modules[__name__], gpu_check.bare, gpu_check.fat_binary):
        digest.update(Path(str(module.__file__)).read_bytes())
    names = VIDEO_PACKAGES if video else PACKAGES
    return Kit(
        python=python,
        packages={name: version(name) for name in names},
        runtime=None if video else version(RUNTIME),
        architectures=architectures,
        recipe=digest.hexdigest()[:12],
    )


def is_current(folder: Path, kit: Kit) -> bool:
    """Says whether a folder holds this kit; it appears whole or not at all."""
    try:
        return (folder / MANIFEST).read_text() == _manifest(kit)
    except (OSError, UnicodeDecodeError):
        return False


def make_kit(folder: Path, kit: Kit, console: Console) -> None:
    """Downloads and packs a kit; a kit that is there is replaced, another folder is not.

    Raises:
        StepError: a package that cannot be had, or nowhere to write.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise StepError(f"{folder}: exists and is not a kit, so it is not replaced; remove it or give another --out")
    with atomic_path(folder) as scratch:
        (scratch / WHEELS).mkdir(parents=True)
        console.print(f"{folder}: downloading {len(kit.packages)} wheels", markup=False)
        download(kit.packages, scratch / WHEELS, python=kit.python)
        if kit.runtime is not None:
            with tempfile.TemporaryDirectory() as wheels:
                console.print(f"{folder}: downloading {RUNTIME} {kit.runtime}", markup=False)
                download({RUNTIME: kit.runtime}, Path(wheels), python=kit.python)
                with _progress(console) as progress:
                    task = progress.add_task("packing ONNX Runtime")

                    def tell(done: int, total: int) -> None:
                        progress.update(task, completed=done, total=total)

                    pack_runtime(next(Path(wheels).iterdir()), scratch / ARCHIVE, kit.architectures, tell)
        (scratch / MANIFEST).write_text(_manifest(kit))


def _manifest(kit: Kit) -> str:
    return json.dumps(asdict(kit), indent=1) + "\n"


def download(packages: dict[str, str], folder: Path, *, python: str) -> None:
    """Downloads wheels of exactly these versions, without what they depend on.

    Raises:
        StepError: pip finds none.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "-d", str(folder)]
    command += [word for name in _PLATFORMS for word in ("--platform", name)]
    command += [f"{name}=={version}" for name, version in packages.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise StepError(f"pip cannot download for Python {python}: {errors[-1].removeprefix('ERROR: ')}")


def pack_runtime(
    wheel: Path,
    archive: Path,
    architectures: Collection[int],
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Packs what the check needs of ONNX Runtime's wheel: its Python files, its module and its CUDA provider.

    The provider keeps the kernels of these architectures, but for those of language models.

    Args:
        wheel: of onnxruntime-gpu.
        archive: the .tar.xz to write.
        architectures: see `Kit`.
        tell: is called with how many bytes are packed, of how many.

    Raises:
        StepError: the wheel has no CUDA provider.
    """
    with zipfile.ZipFile(wheel) as source:
        names = [name for name in source.namelist() if _KEPT_FILES.fullmatch(name)]
        if not any(name.endswith(_PROVIDER) for name in names):
            raise StepError(f"{wheel.name} has no {_PROVIDER}")
        total, done = sum(source.getinfo(name).file_size for name in names), 0
        with (
            lzma.open(archive, "wb", format=lzma.FORMAT_XZ, filters=list(_FILTERS)) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            for name in names:
                content = bytearray(source.read(name))
                if name.endswith(_PROVIDER):
                    drop_kernels(content, _is_of_language_model, architectures=architectures)
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o755 if name.endswith(".so") else 0o644
                tar.addfile(entry, _Counted(content, partial(_tell_from, tell, done, total)))
                done += len(content)


def _is_of_language_model(kernel: str) -> bool:
    return _LANGUAGE_MODELS.match(kernel) is not None


def folder_bytes(folder: Path) -> int:
    """Counts the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tell_from(tell: Callable[[int, int], None], start: int, total: int, read: int) -> None:
    tell(start + read, total)


class _Counted(io.BytesIO):
    """Reports how much of its content was read."""

    def __init__(self, content: bytearray, tell: Callable[[int], None]) -> None:
        super().__init__(content)
        self._tell = tell

    def read(self, size: int | None = -1, /) -> bytes:
        self._tell(self.tell())
        return super().read(size)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


if __name__ == "__main__":
    main()
