"""The packaged model for a benchmark of it, as it comes and exported otherwise, with engines."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from step.bundles.graph_spec import Precision
from step.bundles.libraries import LIBRARIES
from step.checkpoints.toy_model import BUNDLE, CHECKPOINT, NAME
from step.parent import child_command
from step.reporter import Reporter
from step_runtime.benchmark.model_export import can_export, export_model

_BUILDER = "step_export.engines.cli"
"""The module of step-build."""
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
_EXPORTS_AT_ONCE = 2


def toy_bundles(folder: Path, backends: list[str], reporter: Reporter) -> list[Path]:
    """Copies the packaged bundle and exports what differs from it: float16 and, for tensorrt, without plugins.

    Where nothing can be exported, or engines cannot be built, a line says what is missing.

    Args:
        folder: to write in.
        backends: names that `list_configurations` takes.
        reporter: says what is going on.

    Raises:
        StepError: the model cannot be exported.
    """
    libraries = [library for library in LIBRARIES if library in (name.removesuffix("-no-graph") for name in backends)]
    packaged = folder / f"{NAME}-fp32"
    shutil.copytree(BUNDLE, packaged)
    options: dict[Path, list[str]] = {folder / f"{NAME}-fp16": ["--precision", "fp16"]}
    if "tensorrt" in libraries:
        for precision in ("fp32", "fp16"):
            options[folder / f"{NAME}-{precision}-no-plugins"] = ["--precision", precision, "--no-plugins"]
    if can_export():
        # Tracing takes one core each.
        with reporter.progress("exporting the toy model"), ThreadPoolExecutor(_EXPORTS_AT_ONCE) as pool:
            list(pool.map(lambda path: export_model(CHECKPOINT, path, *options[path]), options))
    else:
        missing = ", ".join(path.name for path in options)
        options = {}
        reporter.note(f"{missing}: exported first, which needs torch and onnx: pip install 'step-trt[export]'")
    bundles = [packaged, *options]
    for path in bundles:
        for library in libraries:
            with reporter.progress(f"building engines: {path.name}, {library}"):
                problem = _build(path, library)
            if problem is not None:
                reporter.note(f"{path.name}: no {library} engines: {problem}")
    return bundles


def _build(bundle: Path, library: str) -> str | None:
    """Builds engines; returns the last line of what went wrong, None where nothing did."""
    command = child_command(_BUILDER, str(bundle), "--engine", library)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
