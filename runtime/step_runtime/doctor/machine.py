"""What this machine has: system, driver, GPUs, and the libraries beside those that run a model."""

import importlib.metadata
import platform
from collections.abc import Iterator

from step_plugins import PluginError, find_problem
from step_plugins.nvrtc import nvrtc_version

from step.bundles.libraries import load_library
from step.errors import StepError
from step.revision import project_version
from step_runtime.backends.gpus import driver_version, list_gpus
from step_runtime.doctor.finding import Finding, Status


def look_at_machine() -> Iterator[Finding]:
    """Yields what the system, the driver and the GPUs are."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    yield Finding("machine", "system", "ok", f"{system}, step-trt {project_version()}")
    driver = driver_version()
    yield Finding("machine", "NVIDIA driver", "ok" if driver else "absent", driver or "none")
    try:
        gpus = list_gpus()
    except StepError as error:
        yield Finding("machine", "GPU", "absent", str(error))
        return
    if not gpus:
        yield Finding("machine", "GPU", "absent", "the driver sees none")
    for gpu in gpus:
        text = f"{gpu.name}, {gpu.capability}, {gpu.memory_bytes / 1e9:.1f} GB"
        yield Finding("machine", f"cuda:{gpu.index}", "ok", text)


def look_at_libraries() -> Iterator[Finding]:
    """Yields what there is for building and compiling; what runs models is among the backends."""
    try:
        problem = find_problem(load_library("tensorrt"))
    except StepError as error:
        problem = str(error)
    status: Status = "ok" if problem is None else "absent"
    yield Finding("libraries", "plugins", status, problem or "can be compiled for TensorRT's engines")
    try:
        major, minor = nvrtc_version()
        yield Finding("libraries", "NVRTC", "ok", f"of CUDA {major}.{minor}; compiles the operators' kernels")
    except PluginError as error:
        yield Finding("libraries", "NVRTC", "absent", f"{error} (for TensorRT plugins)")
    for package, purpose in (
        ("cuda-bindings", "for the TensorRT backends"),
        ("onnx", "for step-export and OpenVINO"),
        ("onnxscript", "for step-export"),
    ):
        try:
            yield Finding("libraries", package, "ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("libraries", package, "absent", f"not installed; {purpose}")
