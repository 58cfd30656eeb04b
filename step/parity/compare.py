"""Two backends on the same clips, compared graph by graph."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from step.bundles.graph_spec import BACKBONE, DETECT, FUSED, Arrays, GraphSpec, Precision
from step.bundles.manifest import Manifest, ParityRow, Thresholds
from step.bundles.step_loop import GraphChain
from step.config import StepConfig
from step.parity.check import ParityCheck
from step.parity.runner import GraphRunner

NamedClip = tuple[str, NDArray[np.uint8]]
"""A clip's name and its frames, uint8 [B, F, H, W, 3]."""


@dataclass(frozen=True)
class ComparedModel:
    """What both ways of running have in common.

    Attributes:
        config: the model's architecture.
        specs: interfaces of the graphs, by name, in the order of the step loop.
        thresholds: baked into the graphs.
    """

    config: StepConfig
    specs: Mapping[str, GraphSpec]
    thresholds: Thresholds

    @classmethod
    def of(cls, manifest: Manifest) -> "ComparedModel":
        """The model of a bundle."""
        return cls(manifest.config, manifest.specs, manifest.thresholds)


def compare(
    reference: GraphRunner, candidate: GraphRunner, model: ComparedModel, clips: Iterable[NamedClip]
) -> Iterator[ParityRow]:
    """Compares two runners of a model's graphs.

    The fused graph runs end to end. Every graph of the step loop runs twice: on the same inputs, which the reference
    wrote, and ("chained") each runner on its own.

    Args:
        reference: what the errors are relative to; the more exact of the two.
        candidate: what is judged.
        model: whose graphs they run.
        clips: what they run on.

    Yields:
        One row per graph, clip and tensor. A value that is not finite never passes.

    Raises:
        StepError: a graph cannot be loaded or run.
    """
    precision = common_precision(reference, candidate)
    for name, frames in clips:
        check = ParityCheck(precision=precision, clip=name, thresholds=model.thresholds)
        if FUSED in model.specs:
            inputs = {"frames": frames}
            found, expected = candidate.run(FUSED, inputs), reference.run(FUSED, inputs)
            yield from _compare_outputs(FUSED, model.specs[FUSED], check, found, expected)
        yield from _compare_loop(reference, candidate, model, frames, check)


def common_precision(reference: GraphRunner, candidate: GraphRunner) -> Precision:
    """Whose tolerances two runners are held to: fp32's where both compute in it."""
    return "fp16" if "fp16" in (reference.precision, candidate.precision) else "fp32"


def _compare_loop(
    reference: GraphRunner,
    candidate: GraphRunner,
    model: ComparedModel,
    frames: NDArray[np.uint8],
    check: ParityCheck,
) -> Iterator[ParityRow]:
    alone, reference_chain, candidate_chain = (GraphChain(model.config, frames) for _ in range(3))
    for spec in (spec for name, spec in model.specs.items() if name != FUSED):
        inputs = alone.inputs(spec)
        expected, found = reference.run(spec.name, inputs), candidate.run(spec.name, inputs)
        yield from _compare_outputs(spec.name, spec, check, found, expected)
        alone.add(expected)
        if spec.name != BACKBONE:  # which has no graph before it
            own_inputs = reference_chain.raw_inputs(spec)
            if not _same(own_inputs, inputs):  # as they are where nothing was rounded to half
                expected = reference.run(spec.name, own_inputs)
            found = candidate.run(spec.name, candidate_chain.raw_inputs(spec))
            yield from _compare_outputs(f"{spec.name} chained", spec, check, found, expected)
        reference_chain.add(expected)
        candidate_chain.add(found)


def _same(one: Arrays, other: Arrays) -> bool:
    return all(one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one)


def _compare_outputs(
    label: str, spec: GraphSpec, check: ParityCheck, found: Arrays, expected: Arrays
) -> Iterator[ParityRow]:
    if spec.name in (FUSED, DETECT):
        yield check.detections(label, found, expected)
    names = [tensor.name for tensor in spec.outputs]
    for name in names:
        if name == "class_scores":
            yield check.scores(label, name, found[name], expected[name])
        elif name.endswith("_px"):
            yield check.boxes(label, name, found[name], expected[name])
        elif spec.name == BACKBONE:
            yield check.features(label, name, found[name], expected[name])
