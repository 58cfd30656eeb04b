"""The stages of a clip as ONNX models: backbone, context, each progressive step, detect."""

from pathlib import Path
from typing import TYPE_CHECKING

from step.bundles.graph_spec import BACKBONE, CONTEXT, DETECT, FUSED, step_graph_name
from step.bundles.manifest import Manifest
from step.bundles.onnx_files import load_onnx
from step.checkpoints.toy_model import model_name
from step.errors import StepError
from step_runtime.benchmark.roofline.context_cut import cut_context

if TYPE_CHECKING:
    import onnx


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
        raise StepError(
            f"{model_name(folder)}: has no step-loop graphs, which the stages are; export it with: --graphs all"
        )
    require_onnx()
    models = {name: load_onnx(folder / record.file) for name, record in manifest.graphs.items()}
    if manifest.config.context:
        models[BACKBONE], models[CONTEXT] = cut_context(models[BACKBONE])
    names = [*stage_names(manifest), *([FUSED] if FUSED in models else [])]
    return {name: models[name] for name in names}


def require_onnx() -> None:
    """Counting and cutting need onnx, which running does not.

    Raises:
        StepError: it is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise StepError(f"counting needs {error.name}; pip install 'step-trt[export]'") from error
