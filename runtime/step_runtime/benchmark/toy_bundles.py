"""The packaged model exported, and its engines built, for a benchmark of it."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from step.bundles.graph_spec import Precision
from step.bundles.libraries import LIBRARIES
from step.checkpoints.toy_model import NAME
from step.parent import child_command
from step_runtime.benchmark.model_export import export_model

_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
_EXPORTS_AT_ONCE = 2


def toy_bundles(folder: Path, backends: list[str], console: Console) -> list[Path]:
    """One for each precision, with engines where a backend needs them; for tensorrt also one without plugins.

    Engines that cannot be built here are left out: their rows say what is missing.

    Args:
        folder: to write in.
        backends: names that `list_configurations` takes.
        console: shows what is going on.

    Raises:
        StepError: the model cannot be exported, as where torch is not installed.
    """
    libraries = [library for library in LIBRARIES if library in (name.removesuffix("-no-graph") for name in backends)]
    options: dict[Path, list[str]] = {}
    for precision in _PRECISIONS:
        options[folder / f"toy-{precision}"] = ["--precision", precision]
        if "tensorrt" in libraries:
            options[folder / f"toy-{precision}-no-plugins"] = ["--precision", precision, "--no-plugins"]
    # Tracing takes one core each.
    with console.status("exporting the toy model"), ThreadPoolExecutor(_EXPORTS_AT_ONCE) as pool:
        list(pool.map(lambda path: export_model(NAME, path, *options[path]), options))
    for path in options:
        for library in libraries:
            with console.status(f"building engines: {path.name}, {library}"):
                problem = _build(path, library)
            if problem is not None:
                console.print(f"{path.name}: no {library} engines: {problem}", soft_wrap=True, markup=False)
    return list(options)


def _build(bundle: Path, library: str) -> str | None:
    """The last line of what went wrong; None where nothing did."""
    command = child_command("step_export.engines.cli", str(bundle), "--engine", library)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
