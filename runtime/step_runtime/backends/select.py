"""Choosing a backend for a model."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from step.arguments import check_choice, check_whole
from step.bundles.graph_spec import FUSED
from step.bundles.libraries import LIBRARIES
from step.bundles.manifest import DEFAULT_THRESHOLDS, Manifest, Thresholds, no_such_model, read_bundle
from step.checkpoints.toy_model import find_bundle, find_checkpoint, model_name
from step.errors import ArgumentError, StepError
from step.nearest import did_you_mean
from step.shown import quoted
from step_runtime.backends.base import Backend, Loop
from step_runtime.tracing.tracer import SILENT, Tracer

BackendName = Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime", "openvino", "torch"]
BACKENDS: tuple[BackendName, ...] = ("auto", "tensorrt", "tensorrt-rtx", "onnxruntime", "openvino", "torch")
LOOPS: tuple[Loop, ...] = get_args(Loop)
MOST_THREADS = 1024
_DEVICES = ("auto", "cpu", "cuda")


def open_backend(
    model: Path,
    *,
    backend: BackendName = "auto",
    loop: Loop | None = None,
    num_steps: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    skipped: Callable[[str, str], None] = lambda _name, _reason: None,
    tracer: Tracer = SILENT,
) -> Backend:
    """Loads a model.

    Args:
        model: a bundle folder, a checkpoint file for the torch backend, or `toy`, the model in the package.
        backend: "auto" takes PyTorch for a checkpoint, and for a bundle the first that can of TensorRT, TensorRT-RTX,
            ONNX Runtime on CUDA, OpenVINO, ONNX Runtime on the CPU: the order of their speed.
        loop: None takes the fused graph where the bundle has it and all steps are wanted, else the step loop.
        num_steps: stop after this many progressive steps; None for all.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None lets the library choose.
        skipped: is called with the backend that "auto" did not take, and why.
        tracer: records uploads, graphs and downloads.

    Raises:
        StepError: no such model, backend, loop, step count or device.
    """
    _check_arguments(backend, loop, device, num_steps=num_steps, threads=threads)
    model = find_checkpoint(model) if backend == "torch" else find_bundle(model)
    if not model.exists():
        raise no_such_model(model)
    if model.is_file():
        _check_checkpoint(model, backend, loop)
        return open_torch(model, num_steps=num_steps, device=device, threads=threads, tracer=tracer)
    if backend == "torch":
        raise ArgumentError(
            f"`backend` torch runs a checkpoint, not a bundle; give `model` model.pth instead of {model_name(model)}"
        )
    manifest = read_bundle(model)
    steps = manifest.num_steps if num_steps is None else num_steps
    if not 1 <= steps <= manifest.num_steps:
        raise ArgumentError(f"`num_steps` is {steps}; {model_name(model)} was exported with 1 to {manifest.num_steps}")
    chosen_loop = _choose_loop(model, manifest, loop, steps)
    *preferred, last = _candidates(backend, device)

    attempt = functools.partial(
        _open, model=model, manifest=manifest, loop=chosen_loop, num_steps=steps, threads=threads, tracer=tracer
    )
    for name, place in preferred:
        try:
            return attempt(name, device=place)
        except StepError as error:
            skipped("onnxruntime on CUDA" if name == "onnxruntime" else name, str(error))
    try:
        return attempt(last[0], device=last[1])
    except StepError as error:
        if last[0] in LIBRARIES and "`backend` onnxruntime" not in str(error):
            raise ArgumentError(f"`backend` {last[0]}: {error}; `backend` onnxruntime runs without") from error
        raise


def check_device(device: object) -> None:
    """Refuses what names no device.

    Raises:
        ArgumentError: it is not auto, cpu, cuda or cuda:N.
    """
    is_numbered = isinstance(device, str) and device.startswith("cuda:") and device[5:].isdecimal()
    if device not in _DEVICES and not is_numbered:
        meant = "cuda" if device == "gpu" else str(device)
        raise ArgumentError(
            f"`device` is {quoted(device)}; give auto, cpu, cuda or cuda:N{did_you_mean(meant, _DEVICES)}"
        )


def _check_arguments(backend: object, loop: object, device: object, *, num_steps: object, threads: object) -> None:
    check_choice("backend", backend, BACKENDS)
    if loop is not None:
        check_choice("loop", loop, LOOPS)
    check_device(device)
    if num_steps is not None:
        check_whole("num_steps", num_steps, least=1)
    if threads is not None:
        check_whole("threads", threads, least=1, most=MOST_THREADS)


def _check_checkpoint(model: Path, backend: BackendName, loop: Loop | None) -> None:
    if loop == "fused":
        raise ArgumentError(
            f"`loop` fused needs a bundle; {model_name(model)} is a checkpoint, whose steps PyTorch runs one by one"
        )
    if backend not in ("auto", "torch"):
        raise ArgumentError(f"{model} is a file; `backend` {backend} needs a bundle: step-export {model} -o BUNDLE")


def _candidates(backend: BackendName, device: str) -> list[tuple[BackendName, str]]:
    """Backends and devices to try, in order."""
    if backend == "onnxruntime" and device == "auto":
        return [("onnxruntime", "cuda"), ("onnxruntime", "cpu")]
    if backend != "auto":
        return [(backend, device)]
    on_cpu: list[tuple[BackendName, str]] = [("openvino", "cpu"), ("onnxruntime", "cpu")]
    if device == "cpu":
        return on_cpu
    on_gpu: list[tuple[BackendName, str]] = [*((library, device) for library in LIBRARIES)]
    return [*on_gpu, ("onnxruntime", "cuda"), *on_cpu] if device == "auto" else [*on_gpu, ("onnxruntime", device)]


def _open(
    name: BackendName,
    *,
    model: Path,
    manifest: Manifest,
    loop: Loop,
    num_steps: int,
    device: str,
    threads: int | None,
    tracer: Tracer,
) -> Backend:
    if name == "tensorrt" or name == "tensorrt-rtx":
        from step_runtime.backends.tensorrt import TensorRTBackend

        return TensorRTBackend.open(
            model, manifest, library=name, loop=loop, num_steps=num_steps, device=device, tracer=tracer
        )
    if name == "openvino":
        from step_runtime.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(
            model, manifest, loop=loop, num_steps=num_steps, device=device, threads=threads, tracer=tracer
        )
    from step_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(
        model, manifest, loop=loop, num_steps=num_steps, device=device, threads=threads, tracer=tracer
    )


def open_torch(
    model: Path,
    *,
    num_steps: int | None,
    device: str = "auto",
    threads: int | None = None,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    tracer: Tracer = SILENT,
) -> Backend:
    """Loads a checkpoint in PyTorch.

    Args:
        model: the checkpoint.
        thresholds: of the detections; a bundle has its own inside.
        num_steps, device, threads, tracer: see `open_backend`.

    Raises:
        StepError: no torch, a bad checkpoint, step count or device.
    """
    if importlib.util.find_spec("torch") is None:
        raise StepError(
            f"{model_name(model)} needs torch where PyTorch runs it, which is not installed; pip install "
            "'step-trt[export]', or give a bundle and another backend"
        )
    import torch

    from step_runtime.backends.torch import TorchBackend

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return TorchBackend(
        model, num_steps=num_steps, device=chosen, threads=threads, thresholds=thresholds, tracer=tracer
    )


def _choose_loop(model: Path, manifest: Manifest, loop: Loop | None, steps: int) -> Loop:
    has_fused = FUSED in manifest.graphs
    has_steps = len(manifest.graphs) > has_fused
    if loop is None:
        loop = "fused" if has_fused and (steps == manifest.num_steps or not has_steps) else "steps"
    if (loop == "fused" and not has_fused) or (loop == "steps" and not has_steps):
        option = "`loop` fused" if loop == "fused" else "`loop` steps, or `reuse_backbone`,"
        raise ArgumentError(
            f"{option} needs graphs that {model_name(model)} has not (it has {', '.join(manifest.graphs)}); "
            "export it again with --graphs all"
        )
    if loop == "fused" and steps != manifest.num_steps:
        raise ArgumentError(
            f"`num_steps` {steps} with the fused graph, which runs {manifest.num_steps}; "
            f"use `loop` steps, or export with `num_steps` {steps}"
        )
    return loop
