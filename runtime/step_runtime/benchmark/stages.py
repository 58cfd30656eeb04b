"""The stages of a clip as ONNX models: backbone, context, each progressive step, detect."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from step.bundle import Manifest
from step.errors import StepError
from step.graph_spec import BACKBONE, DETECT, FUSED, step_graph_name

if TYPE_CHECKING:
    import onnx

CONTEXT = "context"
"""Name of the stage and of the graph output that it computes; in a bundle it is a part of the backbone's graph."""
FEATURES = "features"


def stage_names(manifest: Manifest) -> list[str]:
    """In the order of a clip; without the fused graph."""
    context = [CONTEXT] if manifest.config.context else []
    return [BACKBONE, *context, *map(step_graph_name, range(manifest.num_steps)), DETECT]


def load_stages(folder: Path, manifest: Manifest) -> "dict[str, onnx.ModelProto]":
    """Every stage of a bundle by name, and its fused graph where it has one.

    Args:
        folder: the bundle.
        manifest: what `read_bundle` returned for it.

    Raises:
        StepError: onnx is not installed, or the bundle has no step-loop graphs.
    """
    if BACKBONE not in manifest.graphs:
        raise StepError(f"{folder}: has no step-loop graphs, which the stages are; export it with: --graphs all")
    require_onnx()
    import onnx

    models = {name: onnx.load(folder / record.file) for name, record in manifest.graphs.items()}
    if manifest.config.context:
        models[BACKBONE], models[CONTEXT] = cut_context(models[BACKBONE])
    names = [*stage_names(manifest), *([FUSED] if FUSED in models else [])]
    return {name: models[name] for name in names}


def cut_context(model: "onnx.ModelProto") -> "tuple[onnx.ModelProto, onnx.ModelProto]":
    """Cuts a backbone graph in what `features` needs, and what only `context` needs.

    The second one's inputs are the tensors that it reads of the first one, which need not be outputs of the first.
    """
    import onnx.shape_inference
    import onnx.utils

    for_features = _ancestors(model, FEATURES)
    only_context = [index for index in _ancestors(model, CONTEXT) if index not in for_features]
    made = {name for index in only_context for name in model.graph.node[index].output}
    weights = {tensor.name for tensor in model.graph.initializer}
    read = [name for index in only_context for name in model.graph.node[index].input if name]
    cuts = [name for name in dict.fromkeys(read) if name not in made and name not in weights]
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))  # a cut needs its tensor's shape
    frames = [value.name for value in model.graph.input]
    return extractor.extract_model(frames, [FEATURES]), extractor.extract_model(cuts, [CONTEXT])


def require_onnx() -> None:
    """Counting and cutting need onnx, which running does not.

    Raises:
        StepError: it is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise StepError(f"counting needs {error.name}; pip install 'step-trt[export]'") from error


def _ancestors(model: "onnx.ModelProto", output: str) -> set[int]:
    """Indices of the nodes that a tensor is computed by."""
    makers = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    found: set[int] = set()
    waiting: list[str] = [output]
    while waiting:
        index = makers.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            inputs: Sequence[str] = model.graph.node[index].input
            waiting += inputs
    return found
