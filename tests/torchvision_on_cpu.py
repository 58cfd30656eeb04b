"""torchvision with its real CPU kernels beside a torch built without CUDA: a stand-in for tests.

PyPI has torchvision built for CUDA alone; its library asks for CUDA symbols of torch that are never called on a CPU.

    python tests/torchvision_on_cpu.py step.training.cli detect ...    # for tests that run `step-train` in a process
"""

import ctypes
import importlib.util
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import torch

_PREFIXES = ("_ZN3c104cuda", "_ZNK3c104cuda", "_ZN2at4cuda")  # c10::cuda, at::cuda


def load_torchvision() -> ModuleType:
    """Imports torchvision, with a trap behind every CUDA symbol that a CPU-only torch lacks."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    if torch.version.cuda is None and "torchvision" not in sys.modules:
        _load_stand_ins(Path(spec.origin).parent)
    import torchvision

    assert hasattr(torch.ops.torchvision, "roi_align")
    return torchvision


def _load_stand_ins(package: Path) -> None:
    command = ["nm", "-D", "-u", package / "_C.so", package / "image.so"]
    missing = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    names = sorted({name for name in missing if name.startswith(_PREFIXES)})
    code = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in names)
    for library in (package.parent / "torchvision.libs").glob("libcudart*"):
        ctypes.CDLL(str(library))
    with tempfile.TemporaryDirectory() as folder:
        for soname in ("libc10_cuda.so", "libtorch_cuda.so"):
            library = Path(folder) / soname
            command = ["cc", "-x", "c", "-w", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", library, "-"]
            subprocess.run(command, input=code, text=True, check=True)
            ctypes.CDLL(str(library))  # stays loaded when its file is gone, and is found by its soname


if __name__ == "__main__":
    load_torchvision()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
