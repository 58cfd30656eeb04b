"""The kit for a GPU machine without network: made of packages that are here, unpacked, and the check run from it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from cuda_libraries import Entry, library, machine_code
from gpu_check import bare, kit
from helpers import ROOT, assert_one_error, run_command

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
CONV, FLASH = "_ZN11onnxruntime4cuda4convEv", "_ZN11onnxruntime5flash3fwdEv"
ORT_FILES = {
    "onnxruntime/__init__.py": b"import onnxruntime.capi",
    "onnxruntime/capi/__init__.py": b"",
    "onnxruntime/capi/onnxruntime_pybind11_state.cpython-312-x86_64-linux-gnu.so": b"the module",
    "onnxruntime/capi/libonnxruntime_providers_cuda.so": bytes(
        library([Entry(machine_code(CONV))], [Entry(machine_code(FLASH))], [Entry(machine_code(CONV), 75)])
    ),
    "onnxruntime/capi/libonnxruntime_providers_shared.so": b"shared",
    "onnxruntime/capi/libonnxruntime_providers_tensorrt.so": b"not carried",
    "onnxruntime/capi/libonnxruntime.so.1.31.1": b"not carried",
    "onnxruntime/tools/convert.py": b"not carried",
}
# What a machine with PyTorch has; the kit brings the rest.
IMAGE = (
    *("torch", "torchgen", "functorch", "torchvision", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec"),
    *(
        "onnx",
        "google",
        "protobuf",
        "ml_dtypes",
        "numpy",
        "cv2",
        "opencv_python_headless",
        "PIL",
        "pillow",
        "pyarrow",
        "setuptools",
    ),
    *("cuda", "cuda_bindings", "cuda_pathfinder", "nvidia", "nvidia_cuda_nvrtc"),
)
STAGES = "environment,bundles,kernels,cuda_runtime,engine_loop"


def _write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    tags = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for path, content in {
            **files,
            f"{stem}.dist-info/METADATA": metadata,
            f"{stem}.dist-info/WHEEL": tags,
            f"{stem}.dist-info/RECORD": b"",
        }.items():
            wheel.writestr(path, content)


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes its packages from, and nothing else: small ones of the names and versions of a kit's."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for plan in (kit.plan_kit(HERE), kit.plan_kit(HERE, video=True)):
        for name, version in plan.packages.items():
            _write_wheel(folder, name, version, {f"{name.replace('-', '_')}.py": b"HERE = 1\n"})
    _write_wheel(folder, kit.RUNTIME, str(kit.plan_kit(HERE).runtime), ORT_FILES)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_made_and_unpacked(packages, tmp_path, capsys):
    out = tmp_path / "build" / "kit"
    words = ("--python", HERE, "--out", out, "--architectures", "80,90")
    code, printed, error = run_command(kit.main, capsys, *words)
    assert code == 0, error
    assert f"kit: 0.0 MiB, for Python {HERE}" in printed
    assert len(list((out / "wheels").iterdir())) == len(kit.PACKAGES)
    assert [path.name[:3] for path in (out.with_name("kit-video") / "wheels").iterdir()] == ["av-"]
    made = (out / bare.ARCHIVE).stat().st_mtime_ns
    assert "kit: is there and current" in run_command(kit.main, capsys, *words)[1]
    assert (out / bare.ARCHIVE).stat().st_mtime_ns == made
    assert_one_error(run_command(kit.main, capsys, *words, "--limit-mib", "0.001"), r"MiB; at most 0.001 MiB")

    unpacked = bare.unpack(out)
    assert (unpacked / "pydantic.py").is_file()
    assert sorted(path.name for path in unpacked.glob("onnxruntime/**/*") if path.is_file()) == sorted(
        Path(name).name for name, content in ORT_FILES.items() if content != b"not carried"
    )
    assert [path.name for path in unpacked.glob("onnxruntime_gpu-*/*")] == ["METADATA"]  # which says its version
    provider = (unpacked / "onnxruntime/capi/libonnxruntime_providers_cuda.so").read_bytes()
    assert provider.count(f"code of {CONV}".encode()) == 1
    assert FLASH.encode() not in provider
    assert len(provider) == len(ORT_FILES["onnxruntime/capi/libonnxruntime_providers_cuda.so"])
    (unpacked / "seen").touch()
    assert bare.unpack(out) == unpacked
    assert (unpacked / "seen").exists()  # nothing is unpacked twice


def test_what_pip_cannot_find(packages, tmp_path, capsys):
    next(packages.glob("rich-*")).unlink()
    done = run_command(kit.main, capsys, "--python", HERE, "--out", tmp_path / "kit")
    assert_one_error(done, f"pip cannot download for Python {HERE}: .*rich==")
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--python", "312"], "--python is 312; give it as 3.12"),
        (["--architectures", "sm_90"], "--architectures is sm_90; give compute capabilities as 80,90"),
        (["--out", "."], "is not a kit, so it is not replaced"),
    ],
)
def test_bad_options(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert_one_error(run_command(kit.main, capsys, *words), said)


def test_kits_that_cannot_be_used(tmp_path, capsys):
    folder = tmp_path / "kit"
    manifest = {"python": HERE, "recipe": "1"}

    def refused(said: str) -> None:
        with pytest.raises(SystemExit, match=said) as ended:
            bare.main(["--kit", str(folder)])
        assert str(ended.value).count("\n") == 0
        assert not folder.with_name("kit-unpacked").exists()

    refused("no kit here .*make gpu-kit")
    (folder / bare.WHEELS).mkdir(parents=True)
    (folder / bare.MANIFEST).write_text("[]")
    refused("it is damaged")
    (folder / bare.MANIFEST).write_text(json.dumps(manifest | {"python": "3.9"}))
    refused(f"the kit is for Python 3.9, this is {HERE}; make gpu-kit PYTHON_VERSION={HERE}")
    (folder / bare.MANIFEST).write_text(json.dumps(manifest))
    (folder / bare.ARCHIVE).write_bytes(b"\xfd7zXZ\0 cut")
    refused("is damaged .*make it again: make gpu-kit")
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]


def test_environment(tmp_path, monkeypatch):
    """The kit first, the project next, then what was there; CUDA's libraries are found where wheels put them."""
    libraries = tmp_path / "site" / "nvidia" / "cu13" / "lib"
    libraries.mkdir(parents=True)
    (tmp_path / "site" / "nvidia" / "other" / "lib").mkdir(parents=True)
    (libraries / "libcudart.so.13").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    changed = bare.environment([tmp_path / "kit"], {"PYTHONPATH": "before", "LD_LIBRARY_PATH": "old", "HOME": "home"})
    folders = changed["PYTHONPATH"].split(os.pathsep)
    assert folders[:3] == [str(tmp_path / "kit"), str(ROOT), str(ROOT / "export")]
    assert folders[-1] == "before"
    assert changed["LD_LIBRARY_PATH"] == f"old{os.pathsep}{libraries}"
    assert (changed["HOME"], changed["CUDA_MODULE_LOADING"]) == ("home", "LAZY")
    monkeypatch.setattr(sys, "path", [])
    assert "LD_LIBRARY_PATH" not in bare.environment([tmp_path], {})


@pytest.mark.slow
def test_the_check_runs_from_a_kit(tmp_path):
    """The project's files and a real kit in an empty folder; Python with what PyTorch's images have."""
    project = tmp_path / "project"
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    command = [sys.executable, "-m", "gpu_check.kit", "--python", HERE, "--out", project / "build/gpu-kit"]
    subprocess.run(command, check=True, cwd=project, env=os.environ | {"PYTHONPATH": f"{project}/benchmarks"})
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.name.split("-")[0].split(".")[0] in IMAGE:
            (site / path.name).symlink_to(path)
    done = subprocess.run(
        [tmp_path / "venv/bin/python", "benchmarks/gpu_check/bare.py", "--device", "none", "--only", STAGES],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check = json.loads((project / "build/gpu-check/gpu_check.json").read_text())
    assert {stage["name"]: stage["status"] for stage in check["stages"]} == dict.fromkeys(STAGES.split(","), "passed")
