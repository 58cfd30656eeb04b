"""The packaged model as a bundle, for benchmarks that are given none."""

import subprocess
import sys
from pathlib import Path

from step.errors import StepError
from step.toy_model import NAME


def export_toy(folder: Path, *, precision: str) -> Path:
    """Exports the packaged model, in a process of its own; not verified.

    Args:
        folder: where the bundle's folder goes.
        precision: "fp32" or "fp16".

    Returns:
        The bundle.

    Raises:
        StepError: it cannot be exported; PyTorch is not installed, for instance.
    """
    path = folder / f"{NAME}-{precision}"
    options = [NAME, "-o", str(path), "--precision", precision, "--no-verify"]
    command = [sys.executable, "-c", "from step_export.cli import main; main()", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepError(f"the toy model cannot be exported: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return path
