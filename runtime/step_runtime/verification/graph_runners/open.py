"""Choosing a graph runner by name."""

from pathlib import Path

from step.bundles.graph_spec import Precision
from step.bundles.manifest import Manifest
from step.checkpoints.toy_model import find_checkpoint
from step.errors import ArgumentError, StepError
from step.files.atomic import sha256
from step.parity.runner import GraphRunner

RUNNERS = ("onnxruntime", "onnxruntime-fp32", "onnxruntime-fp16", "torch", "tensorrt", "tensorrt-rtx")


def open_runner(name: str, bundle: Path, manifest: Manifest, *, checkpoint: Path | None, device: str) -> GraphRunner:
    """Makes a runner; it loads a graph when that graph is first run.

    Args:
        name: one of `RUNNERS`.
        bundle: folder.
        manifest: what `read_bundle` returned for it.
        checkpoint: what the bundle was exported from; for torch alone.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        StepError: no such runner, or it lacks a library, the checkpoint or the device.
    """
    if device not in ("cpu", "cuda") and not (device.startswith("cuda:") and device[5:].isdecimal()):
        raise ArgumentError(f"`backends` {name}:{device}: no device {device!r}; give cuda or cuda:N, or leave it out")
    try:
        match name:
            case "onnxruntime":
                from step_runtime.verification.graph_runners.onnxruntime import OnnxRuntimeRunner

                return OnnxRuntimeRunner(bundle, manifest, device=device)
            case "onnxruntime-fp32" | "onnxruntime-fp16":
                from step_runtime.verification.graph_runners.onnxruntime_arithmetic import OnnxRuntimeArithmeticRunner

                arithmetic: Precision = "fp32" if name == "onnxruntime-fp32" else "fp16"
                return OnnxRuntimeArithmeticRunner(bundle, manifest, arithmetic=arithmetic, device=device)
            case "torch":
                return _torch_runner(checkpoint, manifest, device)
            case "tensorrt" | "tensorrt-rtx":
                from step_runtime.verification.graph_runners.tensorrt import TensorRTRunner

                return TensorRTRunner.open(bundle, manifest, library=name, device="cuda" if device == "cpu" else device)
    except ModuleNotFoundError as error:
        raise ArgumentError(f"`backends` {name} needs {error.name}; pip install 'step-trt[export]'") from error
    raise ArgumentError(f"`backends`: no backend {name!r}; there are {', '.join(RUNNERS)}")


def _torch_runner(checkpoint: Path | None, manifest: Manifest, device: str) -> GraphRunner:
    from step.checkpoints.own_format import load_checkpoint
    from step.models.torch_runner import TorchRunner

    if checkpoint is None:
        raise ArgumentError("`backends` torch runs the checkpoint itself; give `checkpoint` model.pth")
    detector = load_checkpoint(checkpoint)
    if sha256(find_checkpoint(checkpoint)) != manifest.source.sha256:
        raise StepError(
            f"{checkpoint}: not what the bundle was exported from ({manifest.source.file}, "
            f"sha256 {manifest.source.sha256[:12]}...); give that checkpoint"
        )
    return TorchRunner(
        detector, manifest.specs, options=manifest.options, thresholds=manifest.thresholds, device=device
    )
