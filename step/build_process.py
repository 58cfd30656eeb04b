"""Building an engine in a process of its own: what is asked, what is answered, and listening to it (torch-free).

The other end is `python -m step_export.build_worker`, which holds the TensorRT library.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from step.engines import BuildOptions
from step.errors import StepError
from step.records import Record

_CANCEL_WAIT_S = 10.0


class PluginsRefusedError(StepError):
    """The library would not take an operator of ours as a plugin; its function body may still do."""


class BuildRequest(Record):
    """One engine to build.

    Attributes:
        onnx_file: the graph.
        engine_file, log_file, layers_file: where to write.
        options: how to build.
        timing_cache: see `build_engine`.
        mark_outputs: see `build_engine`.
        device: index of the GPU to build on, for tensorrt.
    """

    onnx_file: Path
    engine_file: Path
    log_file: Path
    layers_file: Path
    options: BuildOptions
    timing_cache: Path | None = None
    mark_outputs: tuple[str, ...] = ()
    device: int = 0


class BuildResult(Record):
    """What the process says of a finished build; see `step.engines` for the fields."""

    version: str
    gpu: str | None
    compute_capability: str | None
    build_s: float
    layers: dict[str, int]
    plugins: tuple[str, ...]
    scratch_bytes: int | None
    weights_bytes: int | None


def run_build(request: BuildRequest, progress: Callable[[str, float], None]) -> BuildResult:
    """Builds an engine in a process of its own.

    Args:
        request: what to build and where to write it.
        progress: is told the phase and the share of the build that is done, 0 to 1.

    Raises:
        PluginsRefusedError: the library did not take a plugin.
        StepError: the build failed otherwise, or the process crashed.
        KeyboardInterrupt: the build was interrupted; the process has ended.
    """
    with (
        tempfile.TemporaryFile("w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "step_export.build_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=_environment(request.device),
            start_new_session=True,  # Ctrl-C is ours to answer: the library has to be asked to stop
        ) as process,
    ):
        try:
            result = _listen(process, request, progress)
        except StepError as error:
            _stop(process)
            refusal = _plugin_error(stderr)  # the library tells of an exception in a plugin there, and only there
            if refusal is None:
                raise
            raise PluginsRefusedError(refusal) from error
        except BaseException:
            _stop(process)
            raise
        process.wait()
        if result is None:
            raise StepError(_crash_message(process.returncode, request, stderr))
    return result


def _environment(device: int) -> dict[str, str]:
    """Shows the process one GPU alone: the library builds on the first that it sees."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(index) for index in range(device + 1)] if shown is None else shown.split(",")
    return {**os.environ, "CUDA_VISIBLE_DEVICES": devices[device] if device < len(devices) else ""}


def _listen(
    process: "subprocess.Popen[str]", request: BuildRequest, progress: Callable[[str, float], None]
) -> BuildResult | None:
    """Events until the process ends; None if it ended without a result."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request.model_dump_json() + "\n")
        process.stdin.flush()  # and left open: its end is the wish to stop
    except BrokenPipeError:
        return None
    for line in process.stdout:
        event = json.loads(line)
        if "plugins_refused" in event:
            raise PluginsRefusedError(event["plugins_refused"])
        if "error" in event:
            raise StepError(event["error"])
        if "done" in event:
            return BuildResult.model_validate(event["done"])
        if "fraction" in event:
            progress(event["phase"], event["fraction"])
    return None


def _stop(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_CANCEL_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _plugin_error(stderr: IO[str]) -> str | None:
    stderr.seek(0)
    found = re.search(r"\bPluginError: (.*)", stderr.read())
    return None if found is None else found[1].strip()


def _crash_message(returncode: int, request: BuildRequest, stderr: IO[str]) -> str:
    stderr.seek(0)
    said = [line.strip() for line in stderr.read().splitlines() if line.strip()]
    # A shell that is told "killed" by the system usually ran out of memory.
    out_of_memory = -returncode == signal.SIGKILL
    how = f"was ended by {_signal_name(-returncode)}" if returncode < 0 else f"ended with exit code {returncode}"
    advice = "free memory, then build again" if out_of_memory else "please report it"
    if -returncode in (signal.SIGINT, signal.SIGTERM):
        advice = "build again"
    last_words = f": {said[-1]}" if said else ""
    return (
        f"the build process of {Path(request.onnx_file).name} with {request.options.flavour} {how}{last_words}; "
        f"the bundle is as it was; {advice}"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
