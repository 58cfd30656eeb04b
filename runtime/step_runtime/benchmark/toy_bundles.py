"""The packaged model for a benchmark of it: exported with its engines built, or as it comes."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from step.bundles.graph_spec import Precision
from step.bundles.libraries import LIBRARIES
from step.checkpoints.toy_model import CHECKPOINT, NAME, find_model
from step.errors import StepError
from step.parent import child_command
from step.reporter import Reporter
from step_runtime.benchmark.model_export import can_export, export_model

_BUILDER = "step_export.engines.cli"
"""The module of step-build."""
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
_EXPORTS_AT_ONCE = 2


def toy_bundles(folder: Path, backends: list[str], reporter: Reporter) -> list[Path]:
    """Exports one for each precision, with engines where a backend needs them; for tensorrt also one without plugins.

    Engines that cannot be built here are left out: their rows say what is missing. Where nothing can be exported, the
    bundle that comes with the package is all there is.

    Args:
        folder: to write in.
        backends: names that `list_configurations` takes.
        reporter: says what is going on.

    Raises:
        StepError: the model cannot be exported, and no bundle of it comes with the package.
    """
    if not can_export():
        return [packaged_bundle()]
    libraries = [library for library in LIBRARIES if library in (name.removesuffix("-no-graph") for name in backends)]
    options: dict[Path, list[str]] = {}
    for precision in _PRECISIONS:
        options[folder / f"toy-{precision}"] = ["--precision", precision]
        if "tensorrt" in libraries:
            options[folder / f"toy-{precision}-no-plugins"] = ["--precision", precision, "--no-plugins"]
    # Tracing takes one core each.
    with reporter.progress("exporting the toy model"), ThreadPoolExecutor(_EXPORTS_AT_ONCE) as pool:
        list(pool.map(lambda path: export_model(CHECKPOINT, path, *options[path]), options))
    for path in options:
        for library in libraries:
            with reporter.progress(f"building engines: {path.name}, {library}"):
                problem = _build(path, library)
            if problem is not None:
                reporter.note(f"{path.name}: no {library} engines: {problem}")
    return list(options)


def toy_bundle(folder: Path) -> Path:
    """Exports the model in float32 with all its graphs, or gives the bundle that comes with the package.

    Raises:
        StepError: see `toy_bundles`.
    """
    if not can_export():
        return packaged_bundle()
    export_model(CHECKPOINT, folder)
    return folder


def packaged_bundle() -> Path:
    """Finds the bundle that comes with the package.

    Raises:
        StepError: none does.
    """
    found = find_model(NAME)
    if not found.is_dir():
        raise StepError(f"{NAME} is exported first, which needs torch and onnx: pip install 'step-trt[export]'")
    return found


def _build(bundle: Path, library: str) -> str | None:
    """Builds engines; returns the last line of what went wrong, None where nothing did."""
    command = child_command(_BUILDER, str(bundle), "--engine", library)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
