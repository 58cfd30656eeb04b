"""Exporting a model for measuring, in a process of its own: the runtime imports no exporter."""

import importlib.util
import subprocess
from pathlib import Path

from step.errors import StepError
from step.parent import child_command

_EXPORTER = "step_export.cli"
"""The module of step-export."""
_NEEDED = ("torch", "onnx")


def can_export() -> bool:
    """Tells whether what an export needs is installed."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDED)


def export_model(checkpoint: str | Path, folder: Path, *options: str) -> None:
    """Runs step-export without verifying.

    Args:
        checkpoint: a path, or "toy".
        folder: the bundle to write.
        options: of step-export.

    Raises:
        StepError: it cannot be exported.
    """
    command = child_command(_EXPORTER, str(checkpoint), "-o", str(folder), "--no-verify", *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise StepError(f"{checkpoint}: cannot be exported: {reason.removeprefix('error: ')}")
