"""What to type next, given what `step-doctor` found: a command that runs here with what there is."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from step.bundles.libraries import LIBRARIES
from step.checkpoints.toy_model import NAME, find_model
from step.errors import StepError
from step_runtime.doctor.backends import describe_library
from step_runtime.doctor.finding import Finding

_TRY_TOY = f"step-eval --model {NAME} --data {NAME}"  # needs neither video nor data
_INSTALL_TORCH = "pip install 'step-trt[export]'"


def find_next_command(findings: Sequence[Finding], model: str | None, video: str | None) -> str:
    """Returns the command; what has failed is left out, so that it does something.

    Args:
        findings: what `examine` gave for the model and the video.
        model, video: as they were typed.
    """
    found = {(finding.section, finding.name): finding.status == "ok" for finding in findings}
    model_runs = found.get(("backends", "auto"), False)
    video_runs = video is not None and all(each.status != "failed" for each in findings if each.section == "video")
    has_torch = found["backends", "torch"]
    if model is None or not model_runs:
        return _TRY_TOY if has_torch or not find_model(NAME).is_file() else _INSTALL_TORCH
    path, name = find_model(model), shlex.quote(model)
    if path.is_dir():
        for library in LIBRARIES:
            if not found.get(("bundle", f"{library} here"), False) and _is_here(library):
                return f"step-build {name} --engine {library}"
    if video is not None and video_runs:
        return f"step-run {shlex.quote(video)} --model {name}"
    if model == NAME:
        return _TRY_TOY
    if path.is_dir():
        return f"step-bench {name}"
    if not (found["libraries", "onnx"] and found["libraries", "onnxscript"]):
        return _INSTALL_TORCH
    return f"step-export {name} -o {shlex.quote(str(Path(model).with_suffix('')) + '-bundle')}"


def _is_here(library: str) -> bool:
    try:
        describe_library("tensorrt" if library == "tensorrt" else "tensorrt-rtx")
    except StepError:
        return False
    return True
