"""What this machine has for running a bundle, and what keeps the bundle from running: the findings of `step-doctor`."""

import contextlib
import importlib.metadata
import importlib.util
import io
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from step_plugins import PluginError, find_problem
from step_plugins.nvrtc import nvrtc_version

from step.bundles.engines import EngineSet, find_damage
from step.bundles.libraries import LIBRARIES, load_library
from step.bundles.manifest import Manifest, read_bundle
from step.errors import StepError
from step.revision import project_version
from step_runtime.backends.engine_checks import check_runnable
from step_runtime.backends.gpus import driver_version, find_gpu, list_gpus
from step_runtime.backends.select import open_backend
from step_runtime.sources.live import LiveSource
from step_runtime.sources.open import find_sources, open_source
from step_runtime.sources.video import VideoSource

Status = Literal["ok", "absent", "failed"]

# An ONNX model of one Identity node: enough to see whether an execution provider's libraries load.
_IDENTITY_MODEL = bytes.fromhex(
    "08073a370a100a017812017922084964656e7469747912016"
    "75a0f0a0178120a0a080801120"
    "40a020801620f0a0179120a0a08080112040a02080142040a00100d"
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        section: what it belongs to.
        name: what was looked at.
        status: "absent" is no harm by itself; "failed" means that the bundle or the video cannot be used.
        text: what was found, or what to do.
    """

    section: str
    name: str
    status: Status
    text: str


def examine(bundle: Path | None, video: str | None) -> Iterator[Finding]:
    """Looks at the machine, the libraries and, where given, a bundle and a video.

    Args:
        bundle: a bundle folder.
        video: anything that `step-run` takes.

    Yields:
        Findings, in the order in which they are made.
    """
    yield from _machine()
    yield from _libraries()
    if bundle is not None:
        yield from _bundle(bundle)
    if video is not None:
        yield _video(video)


def _machine() -> Iterator[Finding]:
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    yield Finding("machine", "system", "ok", f"{system}, step-trt {project_version()}")
    driver = driver_version()
    yield Finding("machine", "NVIDIA driver", "ok" if driver else "absent", driver or "none")
    try:
        gpus = list_gpus()
    except StepError as error:
        yield Finding("machine", "GPU", "absent", str(error))
        return
    if not gpus:
        yield Finding("machine", "GPU", "absent", "the driver sees none")
    for gpu in gpus:
        text = f"{gpu.name}, {gpu.capability}, {gpu.memory_bytes / 1e9:.1f} GB"
        yield Finding("machine", f"cuda:{gpu.index}", "ok", text)


def _libraries() -> Iterator[Finding]:
    for library in LIBRARIES:
        try:
            trt = load_library(library)
            yield Finding("libraries", library, "ok", trt.__version__)
            if library == "tensorrt":
                problem = find_problem(trt)
                status: Status = "ok" if problem is None else "absent"
                yield Finding("libraries", "plugins", status, problem or "can be compiled for TensorRT's engines")
        except StepError as error:
            yield Finding("libraries", library, "absent", str(error))
    yield Finding(
        "libraries", "onnxruntime", "ok", f"{ort.__version__}, providers that load: {', '.join(_providers())}"
    )
    try:
        major, minor = nvrtc_version()
        yield Finding("libraries", "NVRTC", "ok", f"of CUDA {major}.{minor}; compiles the operators' kernels")
    except PluginError as error:
        yield Finding("libraries", "NVRTC", "absent", f"{error} (for TensorRT plugins)")
    for package, purpose in (
        ("cuda-bindings", "for the TensorRT backends"),
        ("torch", "for step-export"),
        ("onnx", "for step-export"),
    ):
        try:
            yield Finding("libraries", package, "ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("libraries", package, "absent", f"not installed; {purpose}")


def _providers() -> list[str]:
    """Those of ONNX Runtime's execution providers whose libraries are really there."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    ort.set_default_logger_severity(4)  # it would print at length what it does not find
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()
        sessions = {
            name: ort.InferenceSession(_IDENTITY_MODEL, options, providers=[name])
            for name in ort.get_available_providers()
        }
    # A provider that does not load is replaced by the CPU's without a word.
    return [name for name, session in sessions.items() if session.get_providers()[0] == name]


def _bundle(bundle: Path) -> Iterator[Finding]:
    try:
        manifest = read_bundle(bundle)
    except StepError as error:
        yield Finding("bundle", "integrity", "failed", str(error))
        return
    yield Finding("bundle", "integrity", "ok", f"{bundle}: every graph is as it was exported")
    yield from _describe(bundle, manifest)
    for library, engines in manifest.engines.items():
        damage = find_damage(engines, bundle)
        if damage is not None:
            command = engines.options.command(bundle)
            yield Finding("bundle", f"{library} engines", "absent", f"they {damage}; build them again: {command}")
            continue
        yield Finding("bundle", f"{library} engines", "ok", _describe_engines(engines))
        yield _engine_fit(bundle, manifest, engines)
    skipped: list[Finding] = []
    try:
        backend = open_backend(
            bundle, skipped=lambda name, reason: skipped.append(Finding("backend", name, "absent", reason))
        )
    except StepError as error:
        yield from skipped
        yield Finding("backend", "auto", "failed", f"nothing here runs this bundle: {error}")
        return
    backend.close()
    yield from skipped
    yield Finding("backend", "auto", "ok", f"takes {backend.name} on {backend.device}, {backend.loop} loop")


def _describe(bundle: Path, manifest: Manifest) -> Iterator[Finding]:
    shape = manifest.preprocessing
    yield Finding(
        "bundle",
        "model",
        "ok",
        f"{manifest.source.file}: {manifest.precision}, {manifest.num_steps} steps, {len(manifest.classes)} classes, "
        f"clips of {shape.clip_frames} frames at {shape.fps} fps, {shape.image_size_px} px",
    )
    batch = "any batch" if manifest.batch is None else f"batch {manifest.batch}"
    size_mb = sum((bundle / graph.file).stat().st_size for graph in manifest.graphs.values()) / 1e6
    yield Finding("bundle", "graphs", "ok", f"{', '.join(manifest.graphs)}; {size_mb:.0f} MB, {batch}")
    if manifest.parity is None:
        yield Finding("bundle", "parity", "absent", "not compared with PyTorch when it was exported (--no-verify)")
    else:
        good = sum(row.passed for row in manifest.parity)
        yield Finding("bundle", "parity", "ok", f"{good} of {len(manifest.parity)} comparisons with PyTorch passed")


def _describe_engines(engines: EngineSet) -> str:
    options = engines.options
    one_batch = options.min_batch == options.max_batch
    batch = f"batch {options.opt_batch}" if one_batch else f"batch {options.min_batch} to {options.max_batch}"
    size_mb = sum(record.size_bytes for record in engines.engines.values()) / 1e6
    scratch = [record.scratch_bytes for record in engines.engines.values() if record.scratch_bytes is not None]
    later = ", and later" if not options.targets and options.library == "tensorrt-rtx" else ""
    memory = f", {max(scratch) / 1e6:.0f} MB scratch" if scratch else ""
    plugins = sorted({name for record in engines.engines.values() for name in record.plugins})
    without = "none" if engines.plugin_problem is None else f"none ({engines.plugin_problem})"
    return (
        f"{', '.join(engines.engines)}; version {engines.version}, {engines.precision}, {batch}, for "
        f"{', '.join(engines.compute_capabilities) or 'an unknown GPU'}{later}; {size_mb:.0f} MB{memory}, "
        f"plugins: {', '.join(plugins) or without}"
    )


def _engine_fit(bundle: Path, manifest: Manifest, engines: EngineSet) -> Finding:
    library = engines.options.library
    try:
        gpu = find_gpu("auto")
        check_runnable(bundle, manifest, library, version=load_library(library).__version__, gpu=gpu)
    except StepError as error:
        return Finding("bundle", f"{library} here", "absent", str(error))
    return Finding("bundle", f"{library} here", "ok", f"they are for this machine ({gpu.name})")


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
