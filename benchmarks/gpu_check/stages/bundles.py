"""Stage: what the others need is exported here, beside them: two models in two precisions, and toy data."""

import itertools
import os
import subprocess
import sys
import time

from gpu_check.models import Model, bundle_name, find_checkpoint, find_toy_data
from gpu_check.stage import Report, StageOptions, run_stage
from step.bundles.graph_spec import Precision

_CORES_AN_EXPORT = 4


def measure(report: Report, options: StageOptions) -> None:
    """Measures seconds and megabytes of each export; as many run at once as the cores allow.

    Raises:
        StepError: a model cannot be written.
    """
    work, device = options.work, options.device
    find_checkpoint("full", work, device)
    at_once = max(1, (os.cpu_count() or 1) // _CORES_AN_EXPORT)
    models: tuple[Model, ...] = ("full", "toy") if device == "cuda" else ("full",)
    waiting: list[tuple[Model, Precision]] = list(itertools.product(models, ("fp16", "fp32")))
    running: list[tuple[str, float, subprocess.Popen[bytes]]] = []
    drawn = False
    while waiting or running:
        while waiting and len(running) < at_once:
            model, precision = waiting.pop(0)
            command = [sys.executable, "-m", "gpu_check.models", device, str(work), model, precision]
            running.append((bundle_name(model, precision, device), time.monotonic(), subprocess.Popen(command)))
        if not drawn:
            start_s = time.monotonic()
            find_toy_data(work, device)
            report.figure("toy data", time.monotonic() - start_s, "seconds")
            drawn = True
        name, start_s, process = running.pop(0)
        if report.check(process.wait() == 0, f"{name}: the export ended with {process.returncode}; see bundles.log"):
            size_bytes = sum(path.stat().st_size for path in (work / name).rglob("*") if path.is_file())
            report.figure(name, time.monotonic() - start_s, "seconds")
            report.figure(name, size_bytes / 1e6, "MB")


if __name__ == "__main__":
    run_stage("bundles", measure)
