"""torchvision, imported here alone: one that does not fit the installed torch is reported in one line.

torchvision's compiled part is made for one release and one build of torch. PyPI's, made for CUDA, does not load beside
a torch that was built for the CPU, and then fails with whatever error comes first.
"""

import importlib.metadata
import re
from collections.abc import Sequence

import torch

from step.errors import StepError
from step.memory import is_memory_shortage

__all__ = ["F", "pair_that_fits", "tv_tensors", "v2"]

_BUILD_WITH_INDEX = re.compile(r"cpu|xpu|cu\d+|rocm[\d.]+")
_NEEDED_TORCH = re.compile(r"torch\s*\(?==\s*([\w.]+)")


def pair_that_fits(torch_version: str, torchvision_version: str, requirements: Sequence[str]) -> str:
    """Says what to install so that torch and torchvision fit each other.

    Args:
        torch_version: of the installed torch, as its package has it: with the build ("2.13.0+cpu") unless it is PyPI's.
        torchvision_version: of the installed torchvision.
        requirements: torchvision's own, as its metadata lists them; they name the torch that it was made for.

    Returns:
        A pip command for a pair of the same build as the installed torch.
    """
    needed = next((found[1] for line in requirements if (found := _NEEDED_TORCH.match(line))), None)
    release, _, build = torch_version.partition("+")
    torch_release, torchvision_release = needed or release, torchvision_version.partition("+")[0]
    if _BUILD_WITH_INDEX.fullmatch(build):
        index = f"--index-url https://download.pytorch.org/whl/{build}"
        return f"pip install torch=={torch_release}+{build} torchvision=={torchvision_release}+{build} {index}"
    return f"pip install --force-reinstall torch=={torch_release} torchvision=={torchvision_release}"


def _misfit(error: Exception) -> StepError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    try:
        torch_version = importlib.metadata.version("torch")
        installed = importlib.metadata.distribution("torchvision")
    except importlib.metadata.PackageNotFoundError:  # one lies on the path without having been installed
        return StepError(
            f"torchvision does not fit torch {torch.__version__} ({reason}); install a pair that does: "
            "pip install --force-reinstall torch torchvision"
        )
    command = pair_that_fits(torch_version, installed.version, installed.requires or [])
    return StepError(
        f"torchvision {installed.version} does not fit torch {torch.__version__} ({reason}); install a pair that does: "
        f"{command}"
    )


try:
    from torchvision import tv_tensors
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F
except (ImportError, AttributeError, OSError, RuntimeError) as error:
    is_absent = isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("torch.")
    if is_absent or is_memory_shortage(error):
        raise
    raise _misfit(error) from error
