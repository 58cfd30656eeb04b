"""Putting a dict of tensors into a module, with an error that names what does not fit."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from step.errors import StepError

_NAMED = 3  # keys listed in full in an error; the rest are counted


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, source: Path) -> None:
    """Loads like `load_state_dict(strict=True)`, but names every problem in one line.

    Args:
        module: what receives the weights.
        state: parameter name -> tensor. A missing `num_batches_tracked` is no problem: nothing here reads it.
        source: file that the error names.

    Raises:
        StepError: missing, unexpected or wrong-shaped keys, values that are no tensors, or weights that are no numbers.
    """
    expected = module.state_dict()
    state = {str(key): value for key, value in state.items()}
    for key in expected:
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, expected[key])
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    wrong = [_mismatch(key, state[key], expected[key]) for key in expected if key in state]
    wrong = [text for text in wrong if text]
    problems = [
        f"{len(keys)} {kind}: {', '.join(keys[:_NAMED])}{', ...' if len(keys) > _NAMED else ''}"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("wrong-shaped", wrong))
        if keys
    ]
    if problems:
        raise StepError(f"{source}: the weights do not fit the model: {'; '.join(problems)}")
    check_finite(state, source=source)
    module.load_state_dict(state)


def check_finite(state: Mapping[str, object], *, source: str | Path) -> None:
    """Refuses weights with a NaN or an infinity, which would find people who are not there, or none, and say nothing.

    Raises:
        StepError: names the first such weight.
    """
    floats = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}
    odd = [key for key, value in floats.items() if not bool(torch.isfinite(value).all())]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise StepError(f"{source}: {odd[0]}{more} holds values that are not finite; train it again")


def _mismatch(key: str, value: object, expected: Tensor) -> str:
    if not isinstance(value, Tensor):
        return f"{key} (a {type(value).__name__}, not a tensor)"
    if value.is_meta:
        return f"{key} (a meta tensor, which has no values)"
    if value.layout != torch.strided or value.is_floating_point() != expected.is_floating_point():
        return f"{key} (a {value.layout} tensor of {value.dtype}, expected {expected.dtype})"
    if value.shape != expected.shape:
        return f"{key} ({list(value.shape)}, expected {list(expected.shape)})"
    return ""
