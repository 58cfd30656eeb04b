"""Clips through a TensorRT backend whose engines are stand-ins: how fast, and whose results are wrong."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from step_runtime.backends.base import Loop
from step_runtime.backends.tensorrt import LibraryOnGpu, TensorRTBackend
from step_runtime.tracing.tracer import SILENT, Tracer

from gpu_check.cuda_machine import CudaMachine
from gpu_check.spin_arithmetic import Words, words_of
from gpu_check.spin_engines import SpinTensorRT
from step.bundles.manifest import Manifest
from step.detections import Detections

RESULTS = Detections._fields
"""Names of the tensors that come of a clip."""
_CLIP_STEP_BYTES = 4 * 1021  # from one clip to the next, in the bytes that all clips are cut from


@dataclass(frozen=True)
class Call:
    """Says which clips one call takes.

    Attributes:
        first: number of the first one.
        clips: how many.
    """

    first: int
    clips: int


@dataclass(frozen=True)
class LoopBench:
    """Holds what runs have in common.

    Attributes:
        machine: the GPU.
        folder: of the bundle.
        manifest: of the bundle.
        most_cycles: of a pause in a kernel.
    """

    machine: CudaMachine
    folder: Path
    manifest: Manifest
    most_cycles: int

    def open(self, loop: Loop, *, cuda_graph: bool, tracer: Tracer = SILENT) -> TensorRTBackend:
        """Opens the project's own backend with stand-in engines.

        Raises:
            StepError: CUDA fails.
        """
        return TensorRTBackend(
            LibraryOnGpu(
                name="tensorrt",
                trt=SpinTensorRT(self.machine.launcher, self.most_cycles),
                cuda=self.machine.cuda,
                gpu=self.machine.gpu,
            ),
            self.folder,
            self.manifest,
            loop=loop,
            num_steps=self.manifest.num_steps,
            cuda_graph=cuda_graph,
            tracer=tracer,
        )


def make_clips(manifest: Manifest, count: int) -> NDArray[np.uint8]:
    """Makes clips that all differ, uint8 [count, F, H, W, 3]; they share memory, and are not to be written to."""
    frames = manifest.graphs["fused"].inputs[0].shape[1:]
    shape = (count, *(int(side) for side in frames))
    size = int(np.prod(shape[1:]))
    content = np.random.default_rng(0).integers(0, 256, size + count * _CLIP_STEP_BYTES, np.uint8)
    strides = (_CLIP_STEP_BYTES, *np.empty(shape[1:], np.uint8).strides)
    return np.lib.stride_tricks.as_strided(content, shape, strides, writeable=False)


def alternating(count: int) -> list[Call]:
    """Makes calls of one and two clips alternately in the first half, then of two, then of one."""
    calls: list[Call] = []
    first = 0
    while first < count:
        alternate = 1 + len(calls) % 2
        clips = min(alternate if first < count // 2 else 2 if first < 3 * count // 4 else 1, count - first)
        calls.append(Call(first, clips))
        first += clips
    return calls


def detect(backend: TensorRTBackend, clips: NDArray[np.uint8], calls: Sequence[Call]) -> tuple[dict[str, Words], float]:
    """Returns the detections of all calls, two of them under way at a time.

    Returns:
        Words of each result, [clips, words], and seconds.

    Raises:
        StepError: CUDA fails.
    """
    found: list[Detections[NDArray[np.generic]]] = []
    pending = None
    start_s = time.perf_counter()
    for call in calls:
        following = backend.submit(clips[call.first : call.first + call.clips])
        if pending is not None:
            found.append(pending.result())
        pending = following
    if pending is not None:
        found.append(pending.result())
    seconds = time.perf_counter() - start_s
    return joined([detections._asdict() for detections in found]), seconds


def detect_in_halves(backend: TensorRTBackend, clips: NDArray[np.uint8], calls: Sequence[Call]) -> dict[str, Words]:
    """Returns features, context and detections of all calls.

    The next clips' features are extracted while the last ones' rest is under way.

    Raises:
        StepError: CUDA fails.
    """
    parts: list[dict[str, NDArray[np.generic]]] = []
    pending = None
    for call in calls:
        features = backend.extract(clips[call.first : call.first + call.clips])
        following = backend.submit_features(features)
        if pending is not None:
            parts[-1] |= pending.result()._asdict()
        pending = following
        parts.append(dict(features.inputs))
    if pending is not None:
        parts[-1] |= pending.result()._asdict()
    return joined(parts)


def joined(parts: Sequence[dict[str, NDArray[np.generic]]]) -> dict[str, Words]:
    """Joins the calls' tensors one after the other, as words of each clip."""
    return {name: np.concatenate([words_of(part[name]) for part in parts]) for name in parts[0]}


def differences(found: dict[str, Words], wanted: dict[str, Words]) -> list[str]:
    """Says for each tensor which clips' is not what it must be; nothing where all are."""
    texts = []
    for name, words in wanted.items():
        wrong = np.flatnonzero((found[name] != words).any(axis=1))
        if len(wrong):
            shown = ", ".join(map(str, wrong[:5]))
            texts.append(f"{name} is wrong of {len(wrong)} of {len(words)} clips: {shown}{' ...' * (len(wrong) > 5)}")
    return texts
