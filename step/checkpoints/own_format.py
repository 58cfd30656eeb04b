"""`load_checkpoint` and `save_checkpoint`: a detector as one file."""

import argparse
import codecs
import collections
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from step.checkpoints import release_reader as release
from step.checkpoints.state import load_state
from step.checkpoints.toy_model import find_checkpoint
from step.config import StepConfig
from step.errors import StepError
from step.files.atomic import atomic_path
from step.memory import is_memory_shortage
from step.models.detector import StepDetector
from step.shown import shown

FORMAT = "step-trt"
FORMAT_VERSION = 1

_rebuilders: tuple[Any, ...] = (np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0])
NUMPY_REBUILDERS: dict[tuple[str, str], Any] = {
    (module, function.__name__): function
    for function in _rebuilders
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2 and since
}
"""What pickles call to rebuild NumPy scalars and arrays, by name; they do nothing else."""

# What a training checkpoint of the release holds besides tensors and plain containers. None of it runs code.
_ALLOWED_GLOBALS: list[Any] = [
    argparse.Namespace,
    collections.Counter,
    codecs.encode,
    np.dtype,
    np.ndarray,
    np.float64,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    *((function, ".".join(name)) for name, function in NUMPY_REBUILDERS.items()),
]

# What torch.load raises for truncated archives and foreign files, depending on where the damage is.
_DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    AssertionError,
    LookupError,
    TypeError,
    AttributeError,
    OSError,
    OverflowError,
    struct.error,
)


def load_checkpoint(path: str | Path) -> StepDetector:
    """Reads a detector, in eval mode on the CPU.

    Args:
        path: a checkpoint of ours (`save_checkpoint`), of the 2019 release (`base_net`, `det_net0`, ..., `cfg`), or
            `toy`, the one in the package.

    Raises:
        StepError: the file is missing, damaged, a pickle that would run code, or does not fit its own config; missing,
            unexpected and wrong-shaped parameters are named.
    """
    path = find_checkpoint(path)
    content = read_torch_file(path)
    if content.get("format") == FORMAT:
        if content.get("version") != FORMAT_VERSION:
            raise StepError(
                f"{path}: checkpoint format version {content.get('version')!r}, this step-trt reads "
                f"{FORMAT_VERSION}; upgrade step-trt"
            )
        values, state = content.get("config"), content.get("state_dict")
        if not isinstance(values, dict) or not isinstance(state, dict):
            raise StepError(f"{path}: damaged: expected config and state_dict to be dicts; copy it again")
        try:
            config = StepConfig.from_dict(values)
        except StepError as error:
            raise StepError(f"{path}: {error}") from error
    elif "base_net" in content:
        config, state = release.config_of(content, path), release.state_of(content, path)
    else:
        found = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise StepError(
            f"{path}: not a STEP checkpoint: expected base_net, context_net, det_net0.. and cfg, found {found}"
        )
    detector = StepDetector.from_config(config)
    load_state(detector, state, source=path)
    return detector


def save_checkpoint(detector: StepDetector, path: str | Path) -> None:
    """Writes a detector in our format, atomically.

    Raises:
        StepError: the place cannot be written.
    """
    write_torch_file(checkpoint_content(detector), Path(path))


def checkpoint_content(detector: StepDetector) -> dict[str, Any]:
    """Makes what our format holds of a detector; readers ignore further keys."""
    state: dict[str, Tensor] = {key: value.detach().cpu() for key, value in detector.state_dict().items()}
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "config": detector.config.to_dict(),
        "state_dict": state,
    }


def write_torch_file(content: dict[str, Any], path: Path) -> None:
    """Calls `torch.save`, atomically.

    Raises:
        StepError: the place cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what torch's own file writer makes of a failed write
            if is_memory_shortage(error):
                raise
            raise StepError(f"cannot write {path}: is the disk full? free space or choose another place") from error


def read_torch_file(path: Path) -> dict[Any, Any]:
    """Reads the dict in a `torch.save` file without running code.

    Raises:
        StepError: missing, damaged, refused, or not a dict.
    """
    if not path.is_file():
        raise StepError(f"{path}: no such file; give the path of a checkpoint (.pth)")
    _check_archive(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED_GLOBALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a pickle is not torch's own shows in whether it can be read
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _refused_global(str(error))
        if reason:
            raise StepError(
                f"{path}: refused: the file wants to load {reason}, which could run code; "
                "only tensors and plain values are read"
            ) from error
        raise StepError(f"{path}: not a checkpoint or damaged ({path.stat().st_size} bytes); copy it again") from error
    except _DAMAGE as error:
        size = path.stat().st_size
        if is_memory_shortage(error):
            raise StepError(f"{path}: not enough memory to read it, or damaged ({size} bytes); free memory") from error
        raise StepError(f"{path}: not a checkpoint or damaged ({size} bytes); copy it again") from error
    if not isinstance(content, dict):
        raise StepError(f"{path}: not a checkpoint: it holds a {type(content).__name__}, expected a dict of weights")
    return content


def _check_archive(path: Path) -> None:
    """Checks the checksums that the file itself holds, which PyTorch does not; files of before 1.6 have none.

    Source: https://docs.pytorch.org/docs/stable/notes/serialization.html ("Serialized file format for torch.save").

    Raises:
        StepError: one differs, or the archive unpacks to more than it is.
    """
    if not zipfile.is_zipfile(path):
        return
    damaged: str | None = None
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise StepError(f"{path}: refused: its parts are said to be larger than the file; copy it again")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, *_DAMAGE) as error:
        raise StepError(f"{path}: not a checkpoint or damaged ({path.stat().st_size} bytes); copy it again") from error
    if damaged is not None:
        raise StepError(f"{path}: damaged: the checksum of {shown(damaged)} in it differs; copy it again")


def _refused_global(message: str) -> str | None:
    """Finds the class or function that weights_only refused in torch's long message."""
    found = re.search(r"(?:GLOBAL|Unsupported class) ([A-Za-z_]\w*(?:\.\w+)+)", message)
    return found[1] if found else None
