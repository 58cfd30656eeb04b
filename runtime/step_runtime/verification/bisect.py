"""Finding the first tensor on which two backends disagree, and the module that would have to stay float32."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from step.bundles.graph_spec import FUSED, Arrays
from step.bundles.manifest import Manifest
from step.bundles.step_loop import GraphChain
from step.parity.compare import NamedClip, common_precision
from step.parity.runner import GraphRunner
from step.parity.tolerances import TOLERANCES
from step_runtime.verification.graph_tensors import GraphTensor, read_tensors
from step_runtime.verification.report import Divergence

_GROUP_TENSORS = 32
_GROUP_BYTES = 256 * 2**20  # of float32, for each of the two backends
_SMALLEST_NORMAL_HALF = 2.0**-14  # below it half has no relative precision left
_LARGEST_HALF = float(np.finfo(np.float16).max)
_PARTS = 10  # how much smaller a part of a tensor may be than the whole whose rounding it has (one delta of a box)


def find_first(
    reference: GraphRunner,
    candidate: GraphRunner,
    bundle: Path,
    manifest: Manifest,
    clips: Sequence[NamedClip],
    *,
    graph: str,
    bound: float,
    progress: Callable[[str], None],
) -> Divergence | None:
    """The first tensor of a graph, in topological order, whose error exceeds a bound; None if there is none.

    The error is max|a - b| / max|a|, a being the reference's values; it is infinite where a value is not finite. An
    error can vanish along a graph (a later layer may forget it), so nothing is concluded from one tensor about others:
    tensors are compared group by group from the graph's inputs on, and every one before the result has been found
    within the bound. A group is what is marked as extra outputs at a time, so that memory stays bounded.

    Args:
        reference: what errors are relative to; the more exact of the two.
        candidate: what is judged, on the same inputs.
        bundle: folder.
        manifest: what `read_bundle` returned for it.
        clips: an error is the largest over all of them.
        graph: name of the graph; what it reads is what the reference writes.
        bound: largest allowed error.
        progress: is called with how far the search is.

    Raises:
        StepError: a graph cannot be loaded or run.
    """
    tensors = read_tensors(bundle / manifest.graphs[graph].file)
    inputs = {name: graph_inputs(reference, manifest, frames, graph=graph) for name, frames in clips}
    count = 0
    for group in _groups(tensors, batch=len(clips[0][1])):
        progress(f"{graph}: {count} of {len(tensors)} tensors are within the bound")
        errors = _errors(reference, candidate, graph, inputs, [tensor.name for tensor in group])
        for tensor in group:
            error, largest, clip = errors[tensor.name]
            if error > bound:
                return Divergence(
                    graph=graph,
                    tensor=tensor.name,
                    node=tensor.node,
                    op_type=tensor.op_type,
                    module=tensor.module,
                    clip=clip,
                    error=error,
                    largest=largest,
                    keep_fp32=None
                    if manifest.precision == "fp32"
                    else _module_to_keep(reference, graph, inputs, tensors, tensor, largest=largest),
                )
        count += len(group)
    return None


def default_bound(reference: GraphRunner, candidate: GraphRunner) -> float:
    """Ten times the tolerance of features, since small parts of tensors are compared on their own: 0.05 or 0.001."""
    return _PARTS * TOLERANCES[common_precision(reference, candidate)].features


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> tuple[float, float]:
    """max|a - b| / max|a| and max|a|, with a the expected values; inf where a value is not finite."""
    largest = float(np.abs(expected).max())
    if not np.isfinite(largest):
        return float("inf"), float("inf")
    difference = found.astype(np.float32)
    difference -= expected
    error = float(np.abs(difference, out=difference).max())
    return (error / max(largest, _SMALLEST_NORMAL_HALF) if np.isfinite(error) else float("inf")), largest


def _errors(
    reference: GraphRunner, candidate: GraphRunner, graph: str, inputs: dict[str, Arrays], names: list[str]
) -> dict[str, tuple[float, float, str]]:
    """Each tensor's largest error, the reference's largest value there, and on which clip that was."""
    worst = dict.fromkeys(names, (0.0, 0.0, ""))
    for clip, arrays in inputs.items():
        expected = reference.run(graph, arrays, names)
        found = candidate.run(graph, arrays, names)
        for name in names:
            worst[name] = max(worst[name], (*relative_error(found[name], expected[name]), clip))
    return worst


def _groups(tensors: Sequence[GraphTensor], *, batch: int) -> Iterator[list[GraphTensor]]:
    group: list[GraphTensor] = []
    size_bytes = 0
    for tensor in tensors:
        more_bytes = 4 * tensor.size(batch)
        if group and (len(group) == _GROUP_TENSORS or size_bytes + more_bytes > _GROUP_BYTES):
            yield group
            group, size_bytes = [], 0
        group.append(tensor)
        size_bytes += more_bytes
    if group:
        yield group


def _module_to_keep(
    reference: GraphRunner,
    graph: str,
    inputs: dict[str, Arrays],
    tensors: Sequence[GraphTensor],
    culprit: GraphTensor,
    *,
    largest: float,
) -> str | None:
    """The innermost module around a tensor whose results half can hold: those are cast to half again.

    None if there is no such module, or the tensor is float32 already.
    """
    if culprit.is_kept_float32 or not culprit.module:
        return None
    if not np.isfinite(largest):
        return culprit.module  # nothing is known of the values behind it
    parts = culprit.module.split(".")
    shortest = 2 if parts[0] == "heads" else 1  # "heads" is the list of heads, which is no module that runs
    for module in (".".join(parts[:count]) for count in range(len(parts), shortest - 1, -1)):
        results = [tensor.name for tensor in tensors if tensor.leaves(module)]
        values = (reference.run(graph, arrays, results) for arrays in inputs.values())
        if all(np.abs(found[name]).max() <= _LARGEST_HALF for found in values for name in results):
            return module
    return None


def graph_inputs(runner: GraphRunner, manifest: Manifest, frames: NDArray[np.uint8], *, graph: str) -> Arrays:
    """What a graph reads, in the dtypes of its interface, when the runner runs the graphs before it.

    Args:
        runner: runs the graphs before it.
        manifest: the bundle's.
        frames: uint8 [B, F, H, W, 3].
        graph: its name.
    """
    chain, specs = GraphChain(manifest.config, frames), manifest.specs
    for name, spec in specs.items():
        if graph in (FUSED, name):
            break
        if name != FUSED:
            chain.add(runner.run(name, chain.inputs(spec)))
    return chain.inputs(specs[graph])
