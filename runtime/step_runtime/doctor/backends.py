"""Every backend: whether its library works here and, given a model, whether it really opens it."""

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from step.bundles.libraries import Library, load_library
from step.checkpoints.toy_model import BUNDLE, CHECKPOINT
from step.errors import StepError
from step_runtime.backends.gpus import find_gpu, list_gpus
from step_runtime.backends.select import BackendName, open_backend
from step_runtime.doctor.finding import Finding, said

IDENTITY_MODEL = bytes.fromhex(
    "08073a370a100a017812017922084964656e7469747912016"
    "75a0f0a0178120a0a080801120"
    "40a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
"""An ONNX model of one Identity node: enough to see whether an execution provider's libraries load."""


@dataclass(frozen=True)
class Place:
    """A backend on a kind of device.

    Attributes:
        name: as the report has it.
        backend: as commands have it.
        device: likewise.
        describe: returns the library's version and what it would run on; raises StepError where it cannot here.
    """

    name: str
    backend: BackendName
    device: str
    describe: Callable[[], str]


def look_at_backends(model: Path | None) -> Iterator[Finding]:
    """Yields a finding for every backend; with a model it is opened in each, and another says which one `auto` takes.

    Args:
        model: a bundle or checkpoint that is whole; None looks at the libraries alone.
    """
    for place in PLACES:
        yield _look_at(place, model)
    if model is None:
        return
    try:
        backend = open_backend(model)
    except StepError as error:
        yield Finding("backends", "auto", "failed", f"nothing here runs this model: {said(error)}")
        return
    backend.close()
    device = backend.device.removesuffix("ExecutionProvider")
    yield Finding("backends", "auto", "ok", f"takes {backend.name} on {device}, {backend.loop} loop")


def _look_at(place: Place, model: Path | None) -> Finding:
    try:
        text = place.describe()
    except StepError as error:
        return Finding("backends", place.name, "absent", said(error))
    if model is None:
        return Finding("backends", place.name, "ok", text)
    if place.backend == "torch" and model == BUNDLE:
        model = CHECKPOINT
    if model.is_file() != (place.backend == "torch"):
        takes = "checkpoints, not bundles" if model.is_dir() else "bundles, which step-export makes of checkpoints"
        return Finding("backends", place.name, "absent", f"{text}; takes {takes}")
    try:
        backend = open_backend(model, backend=place.backend, device=place.device)
    except StepError as error:
        return Finding("backends", place.name, "absent", f"{text}; does not run this model: {said(error)}")
    backend.close()
    return Finding("backends", place.name, "ok", f"{text}; runs this model, {backend.loop} loop")


def describe_library(library: Library) -> str:
    """Returns the version of TensorRT or TensorRT-RTX and the GPU that it would run on.

    Raises:
        StepError: there is none of them.
    """
    version = load_library(library).__version__
    return f"{version}, on {find_gpu('auto').name}"


def _onnxruntime_on_cuda() -> str:
    gpus = list_gpus()
    if not gpus:
        raise StepError("the driver sees no GPU")
    if "CUDAExecutionProvider" not in _providers():
        raise StepError(f"onnxruntime {ort.__version__} cannot load CUDA's libraries here")
    return f"{ort.__version__}, on {gpus[0].name}"


def _openvino() -> str:
    for module in ("openvino", "onnx"):
        _import(module, "openvino")
    return f"{importlib.metadata.version('openvino')}, on the CPU"


def _torch() -> str:
    torch = _import("torch", "export")
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "the CPU"
    return f"{torch.__version__}, on {device}"


def _import(module: str, extra: str) -> Any:
    install = f"pip install 'step-trt[{extra}]'"
    if importlib.util.find_spec(module) is None:
        raise StepError(f"{module} is not installed; {install}")
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise StepError(f"{module} is installed but does not load: {error}; reinstall it: {install}") from error


PLACES = (
    Place("tensorrt", "tensorrt", "auto", functools.partial(describe_library, "tensorrt")),
    Place("tensorrt-rtx", "tensorrt-rtx", "auto", functools.partial(describe_library, "tensorrt-rtx")),
    Place("onnxruntime on CUDA", "onnxruntime", "cuda", _onnxruntime_on_cuda),
    Place("onnxruntime on the CPU", "onnxruntime", "cpu", lambda: f"{ort.__version__}, on the CPU"),
    Place("openvino", "openvino", "cpu", _openvino),
    Place("torch", "torch", "auto", _torch),
)
"""In the order of the report."""


def _providers() -> list[str]:
    """Those of ONNX Runtime's execution providers whose libraries are really there."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    ort.set_default_logger_severity(4)  # it would print at length what it does not find
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()
        sessions = {
            name: ort.InferenceSession(IDENTITY_MODEL, options, providers=[name])
            for name in ort.get_available_providers()
        }
    # A provider that does not load is replaced by the CPU's without a word.
    return [name for name, session in sessions.items() if session.get_providers()[0] == name]
