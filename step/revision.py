"""Which version and revision of this project runs (torch-free)."""

import importlib.metadata
import subprocess
from pathlib import Path


def project_version() -> str:
    """Version of the installed project; "(from its folder)" where it runs without being installed."""
    try:
        return importlib.metadata.version("step-trt")
    except importlib.metadata.PackageNotFoundError:
        return "(from its folder)"


def git_revision() -> str | None:
    """The commit of the working tree that the package lies in, with "-dirty" where it has changes; None without one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
