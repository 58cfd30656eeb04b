"""What a benchmark ran on: processor, GPUs, clocks, versions."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from step.cpus import available_cpus
from step.errors import StepError
from step.revision import git_revision
from step_runtime.backends.gpus import driver_version, list_gpus
from step_runtime.benchmark.gpu_meter import GpuMeter

_LIBRARIES = ("step-trt", "torch", "onnxruntime-gpu", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "numpy")


def machine() -> dict[str, Any]:
    """Processor with its clock, threads, system, and GPUs with theirs."""
    found: dict[str, Any] = {
        "cpu": _of_processor("model name") or platform.processor(),
        "cpu_mhz": _of_processor("cpu MHz"),
        "threads": available_cpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    try:
        gpus = list_gpus()
    except StepError:
        return found
    found["gpus"] = [{"name": gpu.name, "bytes": gpu.memory_bytes, **GpuMeter(gpu.index).clocks()} for gpu in gpus]
    return found | {"driver": driver_version()}


def describe_machine(found: dict[str, Any]) -> str:
    """Names processor and GPUs in one line.

    Args:
        found: what `machine` gave.
    """
    count = found.get("threads")
    parts = [str(found.get("cpu") or "unknown processor")]
    if count is not None:
        parts.append(f"{count} CPU{'s' * (count != 1)}")
    parts += [str(gpu.get("name")) for gpu in found.get("gpus", []) if isinstance(gpu, dict)]
    return ", ".join(parts)


def versions() -> dict[str, str]:
    """Versions of the libraries that are there, and the revision of the working tree."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    revision = git_revision()
    return found if revision is None else found | {"git": revision}


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether times of the two can be compared; clocks change from one moment to the next."""
    names = ("cpu", "threads", "gpus")
    return [_without_clocks(one.get(name)) for name in names] == [_without_clocks(other.get(name)) for name in names]


def _without_clocks(value: Any) -> Any:
    return [gpu.get("name") if isinstance(gpu, dict) else gpu for gpu in value] if isinstance(value, list) else value


def _of_processor(field: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), None)
