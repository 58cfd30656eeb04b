"""What the stand-in engines must give, computed on the host with NumPy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from step_runtime.backends.base import Loop

from gpu_check.spin_arithmetic import Words, digest, filled, salt_of, words_of
from gpu_check.spin_bundle import clip_words
from gpu_check.spin_engines import tensor_salt
from step.anchors import anchor_tubes
from step.bundles.graph_spec import BACKBONE, DETECT, FUSED, GraphSpec, step_graph_name
from step.bundles.manifest import Manifest

_CLIPS_AT_ONCE = 20  # so that what is computed of them stays small


def expected(manifest: Manifest, loop: Loop, clips: NDArray[np.uint8], names: Sequence[str]) -> dict[str, Words]:
    """Computes the tensors that the engines leave, by name.

    Args:
        manifest: of the bundle.
        loop: which engines.
        clips: uint8 [clips, F, H, W, 3].
        names: of the tensors; one that several engines write is the last one's.

    Returns:
        Words of each, [clips, words].
    """
    steps = [BACKBONE, *map(step_graph_name, range(manifest.num_steps)), DETECT]
    engines = [FUSED] if loop == "fused" else steps
    specs = [manifest.graphs[name].spec(name) for name in engines]
    parts: list[dict[str, Words]] = []
    for first in range(0, len(clips), _CLIPS_AT_ONCE):
        some = clips[first : first + _CLIPS_AT_ONCE]
        tensors = {"frames": words_of(some), "input_tubes_px": _anchors(manifest, len(some))}
        for spec in specs:
            tensors |= _outputs(spec, tensors)
            if "next_tubes_px" in tensors:
                tensors["input_tubes_px"] = tensors.pop("next_tubes_px")
        parts.append({name: tensors[name] for name in names})
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _outputs(spec: GraphSpec, tensors: dict[str, Words]) -> dict[str, Words]:
    clips = len(tensors[spec.inputs[0].name])
    digests = np.full(clips, salt_of(spec.name), np.uint32)
    for tensor in spec.inputs:
        digests += digest(tensors[tensor.name], tensor_salt(spec.name, tensor))
    return {tensor.name: filled(digests, clip_words(tensor), tensor_salt(spec.name, tensor)) for tensor in spec.outputs}


def _anchors(manifest: Manifest, clips: int) -> Words:
    config = manifest.config
    tubes_px = anchor_tubes(config.anchor_mode, frames=config.chunk_frames, image_size_px=config.image_size_px)
    return words_of(np.repeat(tubes_px[None], clips, axis=0))
