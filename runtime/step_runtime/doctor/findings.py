"""All that `step-doctor` looks at: machine, libraries, model, backends and video."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from step.checkpoints.toy_model import find_model
from step.errors import StepError
from step_runtime.doctor.backends import look_at_backends
from step_runtime.doctor.bundle import look_at_bundle
from step_runtime.doctor.finding import Finding
from step_runtime.doctor.machine import look_at_libraries, look_at_machine
from step_runtime.sources.live import LiveSource
from step_runtime.sources.open import find_sources, open_source
from step_runtime.sources.video import VideoSource


def examine(model: str | Path | None, video: str | None) -> Iterator[Finding]:
    """Looks at the machine, the libraries, every backend and, where given, a model and a video.

    Args:
        model: a bundle folder, a checkpoint, or `toy`.
        video: anything that `step-run` takes.

    Yields:
        Findings, in the order in which they are made.
    """
    yield from look_at_machine()
    yield from look_at_libraries()
    runnable: Path | None = None
    if model is not None:
        path = find_model(model)
        findings = [_checkpoint(path)] if path.is_file() else list(look_at_bundle(path))
        yield from findings
        if all(finding.status != "failed" for finding in findings):
            runnable = path
    yield from look_at_backends(runnable)
    if video is not None:
        yield _video(video)


def _checkpoint(path: Path) -> Finding:
    size_mb = path.stat().st_size / 1e6
    text = f"{path}: {size_mb:.1f} MB, which PyTorch runs; the other backends run what step-export makes of it"
    return Finding("model", "checkpoint", "ok", text)


def _video(location: str) -> Finding:
    try:
        locations = find_sources(location, frames_fps=Fraction(30))
        source = open_source(locations[0], frames_fps=Fraction(30))
        frame = next(source.frames(), None)
    except StepError as error:
        return Finding("video", location, "failed", str(error))
    if frame is None:
        return Finding("video", location, "failed", "no frame could be decoded")
    what = (
        source.description if isinstance(source, (VideoSource, LiveSource)) else f"{frame.width_px}x{frame.height_px}"
    )
    length = "live" if source.is_live else "" if source.duration_s is None else f"{float(source.duration_s):.2f} s"
    others = f"; the first of {len(locations)}, the others were not looked at" if len(locations) > 1 else ""
    text = ", ".join(filter(None, (what, length))) + "; the first frame decodes" + others
    return Finding("video", source.name, "ok", text)
