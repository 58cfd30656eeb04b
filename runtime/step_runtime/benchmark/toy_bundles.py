"""The packaged model exported, and its engines built, for a benchmark of it."""

import subprocess
import sys
from pathlib import Path

from rich.console import Console

from step.errors import StepError
from step.flavours import FLAVOURS
from step.graph_spec import Precision
from step.toy_model import NAME

_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def toy_bundles(folder: Path, backends: list[str], console: Console) -> list[Path]:
    """One for each precision, with engines where a backend needs them; for tensorrt also one without plugins.

    Engines that cannot be built here are left out: their rows say what is missing.

    Args:
        folder: to write in.
        backends: names that `list_ways` takes.
        console: shows what is going on.

    Raises:
        StepError: the model cannot be exported, as where torch is not installed.
    """
    flavours = [flavour for flavour in FLAVOURS if flavour in (name.removesuffix("-no-graph") for name in backends)]
    found = []
    for precision in _PRECISIONS:
        for plugins in (True, False) if "tensorrt" in flavours else (True,):
            path = folder / (f"toy-{precision}" if plugins else f"toy-{precision}-no-plugins")
            words = [
                NAME,
                "-o",
                str(path),
                "--precision",
                precision,
                "--no-verify",
                *([] if plugins else ["--no-plugins"]),
            ]
            with console.status(f"exporting the toy model: {path.name}"):
                problem = _run("step_export.cli", words)
            if problem is not None:
                raise StepError(f"the toy model cannot be exported: {problem}")
            for flavour in flavours:
                with console.status(f"building engines: {path.name}, {flavour}"):
                    problem = _run("step_export.build_cli", [str(path), "--engine", flavour])
                if problem is not None:
                    console.print(f"{path.name}: no {flavour} engines: {problem}", soft_wrap=True, markup=False)
            found.append(path)
    return found


def _run(module: str, words: list[str]) -> str | None:
    """The last line of what went wrong; None where nothing did."""
    command = [sys.executable, "-c", f"from {module} import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
