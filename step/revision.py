"""Which revision of this project runs (torch-free)."""

import subprocess
from pathlib import Path


def git_revision() -> str | None:
    """Of the working tree that the package lies in; None where it lies in none."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
