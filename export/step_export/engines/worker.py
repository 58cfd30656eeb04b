"""Holds the TensorRT library while it builds: `python -m step_export.engines.worker`.

A process of its own, because the library can crash or be killed for memory; see `step.bundles.build_process` for the
other end. One JSON request comes on standard input; standard input's end is the wish to stop. Events go out as lines
of JSON, see `BuildEvent`.
"""

import contextlib
import json
import os
import sys
import threading
import time
from typing import IO

from step.bundles.build_process import BuildEvent, BuildFailure, BuildProgress, BuildRequest, BuildResult
from step.bundles.libraries import load_library
from step.errors import StepError
from step.files.atomic import cannot_write
from step_export.engines.builder import Log, build_engine, count_layers

_REPORT_EVERY_S = 0.1


def _build(request: BuildRequest, events: IO[str], cancelled: threading.Event) -> None:
    trt = load_library(request.options.library)
    gpu, capability = _current_gpu(request)
    log: Log = []
    last_report_s = 0.0

    def report(phase: str, fraction: float) -> None:
        nonlocal last_report_s
        if time.monotonic() - last_report_s >= _REPORT_EVERY_S:
            last_report_s = time.monotonic()
            _send(events, BuildEvent(progress=BuildProgress(phase=phase, fraction=fraction)))

    try:
        engine = build_engine(
            trt,
            request.onnx_file,
            request.options,
            log=log,
            timing_cache=request.timing_cache,
            mark_outputs=request.mark_outputs,
            report=report,
            cancelled=cancelled.is_set,
        )
    finally:
        request.log_file.write_text("".join(f"[{severity}] {message}\n" for severity, message in log))
    if engine is None:
        return  # cancelled, and whoever did that no longer listens
    request.engine_file.write_bytes(engine.plan)
    request.layers_file.write_text(json.dumps(engine.layers, indent=0) + "\n")
    result = BuildResult(
        version=trt.__version__,
        gpu=gpu,
        compute_capability=capability,
        build_s=engine.build_s,
        layers=count_layers(engine),
        plugins=engine.plugins,
        scratch_bytes=engine.scratch_bytes,
        weights_bytes=engine.weights_bytes,
    )
    _send(events, BuildEvent(done=result))


def _current_gpu(request: BuildRequest) -> tuple[str | None, str | None]:
    """Returns name and compute capability of the GPU to build on: the only one that this process is shown."""
    try:
        from cuda.bindings import runtime as cudart
    except ImportError as error:
        if request.options.library == "tensorrt-rtx":
            return None, None  # which builds for GPUs that are not here
        raise StepError(f"cuda-bindings is not installed ({error}); pip install 'step-trt[tensorrt]'") from error
    status, properties = cudart.cudaGetDeviceProperties(0)
    if status != cudart.cudaError_t.cudaSuccess:
        return None, None
    return properties.name.decode().strip("\0"), f"sm{properties.major}{properties.minor}"


def _send(events: IO[str], event: BuildEvent) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more; the build is cancelled as soon as that is seen
        events.write(event.model_dump_json() + "\n")
        events.flush()


def main() -> None:
    """Reads a request, builds, reports."""
    # The library prints to standard output now and then, which would mix with the events.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = BuildRequest.model_validate_json(sys.stdin.readline())
    cancelled = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        cancelled.set()

    threading.Thread(target=watch, daemon=True).start()
    try:
        _build(request, events, cancelled)
    except StepError as error:
        _send(events, BuildEvent(failure=BuildFailure.of(error)))
    except OSError as error:
        _send(events, BuildEvent(failure=BuildFailure.of(cannot_write(request.onnx_file.parent, error))))


if __name__ == "__main__":
    main()
