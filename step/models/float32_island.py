"""Modules that stay float32 inside half-precision networks (`step-export --keep-fp32`)."""

import copy
import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from step.bundles.graph_spec import FLOAT32_ISLAND
from step.errors import ArgumentError

_NEAR_MATCHES = 3


class Float32Island(nn.Module):
    """Keeps a module float32 between half ones: inputs are cast to float32, outputs back to half.

    Args:
        module: takes tensors (or None), returns a tensor or a named tuple of tensors.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.add_module(FLOAT32_ISLAND, module.float())

    def forward(self, *inputs: Tensor | None) -> Any:
        outputs = self.get_submodule(FLOAT32_ISLAND)(*(x if x is None else x.float() for x in inputs))
        return outputs.half() if isinstance(outputs, Tensor) else type(outputs)(*(x.half() for x in outputs))


def copy_matching(root: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Copies the modules that patterns name, by path; of nested ones the outermost alone.

    Args:
        root: paths start below it: "backbone.mixed_4b", "heads.0".
        patterns: as of `fnmatch`; "*" matches dots too.

    Raises:
        ArgumentError: a pattern names no module; the message has the most similar paths.
    """
    # A list of modules is not called itself, so nothing could be cast on its way in and out.
    modules = {path: module for path, module in root.named_modules() if path and not isinstance(module, nn.ModuleList)}
    matching: set[str] = set()
    for pattern in patterns:
        found = {path for path in modules if fnmatchcase(path, pattern)}
        if not found:
            near = difflib.get_close_matches(pattern, modules, n=_NEAR_MATCHES, cutoff=0.0)
            raise ArgumentError(f"`keep_fp32` {pattern!r} matches no module; near it are {', '.join(near)}")
        matching |= found
    outermost = [path for path in modules if path in matching and not matching & _parents(path)]
    return {path: copy.deepcopy(modules[path]) for path in outermost}


def put_islands(root: nn.Module, modules: dict[str, nn.Module]) -> None:
    """Replaces the module at every path by a float32 island around the given one."""
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        setattr(root.get_submodule(parent), name, Float32Island(module))


def _parents(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}
