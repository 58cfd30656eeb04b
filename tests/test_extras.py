"""Which of the package's extras pip can install together, and what it then chooses."""

import tomllib

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# A version of every kind on the index, oldest first.
RELEASES = {
    "cuda-bindings": ("12.8.0", "12.9.4", "12.9.10", "13.0.0", "13.5.0", "14.0.0"),
    "nvidia-cuda-nvrtc": ("13.0.88", "13.1.80", "13.5.37"),
    "nvidia-cuda-nvrtc-cu12": ("12.0.140", "12.3.107", "12.6.85", "12.8.93", "12.9.86"),
}
TORCH_OF_CUDA_12 = ("nvidia-cuda-nvrtc-cu12==12.8.93", "cuda-bindings==12.9.4")  # what PyTorch 2.10 asks for
X86 = {"sys_platform": "linux", "platform_machine": "x86_64"}
ARM = {"sys_platform": "linux", "platform_machine": "aarch64"}


def _requirements(extras, machine):
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == PROJECT["name"]:
                yield from _requirements(requirement.extras, machine)
            elif requirement.marker is None or requirement.marker.evaluate(machine):
                yield requirement


def _choose(extras, machine=X86, others=()):
    """The newest release of each package that suits all; None where there is none."""
    wanted: dict[str, SpecifierSet] = {}
    for requirement in (*_requirements(extras, machine), *map(Requirement, others)):
        wanted[requirement.name] = wanted.get(requirement.name, SpecifierSet()) & requirement.specifier
    return {
        name: max(specifiers.filter(RELEASES[name]), key=Version, default=None)
        for name, specifiers in wanted.items()
        if name in RELEASES
    }


CUDA_13 = {"cuda-bindings": "13.5.0", "nvidia-cuda-nvrtc": "13.0.88"}
CUDA_12 = {"cuda-bindings": "12.9.10", "nvidia-cuda-nvrtc-cu12": "12.0.140"}


@pytest.mark.parametrize(
    ("extras", "chosen"),
    [
        (["plugins"], CUDA_13),
        (["tensorrt"], CUDA_13),
        (["tensorrt", "plugins"], CUDA_13),
        (["rtx", "plugins"], CUDA_13),
        (["plugins-cu12"], CUDA_12),
        (["tensorrt-cu12"], CUDA_12),
        (["rtx", "plugins-cu12"], CUDA_12),
        (["tensorrt", "plugins-cu12"], CUDA_12 | {"nvidia-cuda-nvrtc": "13.0.88"}),
    ],
)
def test_one_cuda_is_chosen(extras, chosen):
    assert _choose(extras) == chosen


def test_the_oldest_nvrtc_of_cuda_12_on_arm():
    """There are no older wheels for it."""
    assert _choose(["plugins-cu12"], ARM) == CUDA_12 | {"nvidia-cuda-nvrtc-cu12": "12.3.107"}


def test_a_pytorch_of_cuda_12_keeps_its_own_nvrtc():
    chosen = _choose(["plugins-torch-cu12"], others=TORCH_OF_CUDA_12)
    assert chosen == {"cuda-bindings": "12.9.4", "nvidia-cuda-nvrtc-cu12": "12.8.93"}
