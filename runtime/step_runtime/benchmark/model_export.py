"""Exporting a model for measuring, in a process of its own: the runtime imports no exporter."""

import subprocess
import sys
from pathlib import Path

from step.errors import StepError

_STEP_EXPORT = "from step_export.cli import main; main()"


def export_model(checkpoint: str | Path, folder: Path, *options: str) -> None:
    """Runs step-export without verifying.

    Args:
        checkpoint: a path, or "toy".
        folder: the bundle to write.
        options: of step-export.

    Raises:
        StepError: it cannot be exported.
    """
    command = [sys.executable, "-c", _STEP_EXPORT, str(checkpoint), "-o", str(folder), "--no-verify", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise StepError(f"{checkpoint}: cannot be exported: {reason.removeprefix('error: ')}")
