"""Stage: what this machine has, in step-doctor's words, and how fast its memory and its matrix units are."""

import shutil
import subprocess

from step_runtime.backends.gpus import find_gpu
from step_runtime.benchmark.machine import machine
from step_runtime.doctor.findings import examine

from gpu_check.stage import Report, StageOptions, run_stage

_TOOLS = ("nvcc", "ptxas", "compute-sanitizer", "ncu", "nvidia-smi")


def measure(report: Report, options: StageOptions) -> None:
    """Adds one row for everything that was found; a GPU that cannot be used is a problem, and so is a missing driver.

    Raises:
        StepError: no GPU, or a driver that cannot be used, where one was asked for.
    """
    for name, value in machine().items():
        if name != "gpus":
            report.figure(name, str(value), "found", table="machine")
    for finding in examine(None, None):
        report.figure(
            f"{finding.section}: {finding.name}", f"{finding.status}: {finding.text}", "found", table="doctor"
        )
    for tool in _TOOLS:
        path = shutil.which(tool)
        report.figure(tool, _version(path) if path else "not on the PATH", "found", table="tools")
    if options.device == "cuda":
        gpu = find_gpu("auto")
        report.figure(
            "GPU", f"{gpu.name}, {gpu.capability}, {gpu.memory_bytes / 2**30:.1f} GiB", "found", table="machine"
        )


def _version(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    lines = [line.strip() for line in done.stdout.splitlines() if any(letter.isdigit() for letter in line)]
    telling = [line for line in lines if "version" in line.lower() or "release" in line.lower()]
    return (telling or lines or [path])[0]


if __name__ == "__main__":
    run_stage("environment", measure)
