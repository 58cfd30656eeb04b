"""Builds an engine in a process of its own: says what is asked and answered, and listens to it (torch-free).

The other end is `python -m step_export.engines.worker`, which holds the TensorRT library.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from step.bundles.engines import BuildOptions
from step.bundles.records import Record
from step.errors import ArgumentError, StepError
from step.parent import child_command

_CANCEL_WAIT_S = 10.0
_ERROR = "[ERROR]"  # how the library's Python bindings begin a line about an exception in a callback
_MOST_ERRORS = 3


class PluginsRefusedError(StepError):
    """The library would not take an operator of ours as a plugin; its function body may still do."""


class BuildStoppedError(StepError):
    """Somebody ended the build process, so that this build is not wanted."""


class BuildCrashedError(StepError):
    """The build process ended without an answer; another try may end otherwise.

    Attributes:
        how: what happened, without what it means for the bundle.
    """

    def __init__(self, how: str, advice: str) -> None:
        super().__init__(f"{how}; the bundle is as it was; {advice}")
        self.how = how


class BuildRequest(Record):
    """Says which engine to build.

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
    """Describes a finished build; see `step.bundles.engines` for the fields."""

    version: str
    gpu: str | None
    compute_capability: str | None
    build_s: float
    layers: dict[str, int]
    plugins: tuple[str, ...]
    scratch_bytes: int | None
    weights_bytes: int | None


class BuildProgress(Record):
    """Says how far a build is.

    Attributes:
        phase: what the library is doing.
        fraction: share of the build that is done, 0 to 1.
    """

    phase: str
    fraction: float


class BuildFailure(Record):
    """Says why a build failed.

    Attributes:
        kind: which exception it is for whoever asked for the build.
        message: one line.
    """

    kind: Literal["plugins refused", "argument", "other"]
    message: str

    @classmethod
    def of(cls, error: StepError) -> "BuildFailure":
        """Returns what the process sends of an exception."""
        if isinstance(error, PluginsRefusedError):
            return cls(kind="plugins refused", message=str(error))
        return cls(kind="argument" if isinstance(error, ArgumentError) else "other", message=str(error))

    def error(self) -> StepError:
        """Returns the exception again."""
        if self.kind == "plugins refused":
            return PluginsRefusedError(self.message)
        return ArgumentError(self.message) if self.kind == "argument" else StepError(self.message)


class BuildEvent(Record):
    """Is one line of JSON from the process, and one of the three; nothing follows a failure or a result."""

    progress: BuildProgress | None = None
    failure: BuildFailure | None = None
    done: BuildResult | None = None


def run_build(request: BuildRequest, progress: Callable[[str, float], None]) -> BuildResult:
    """Builds an engine in a process of its own.

    Args:
        request: what to build and where to write it.
        progress: is called with the phase and the share of the build that is done, 0 to 1.

    Raises:
        PluginsRefusedError: the library did not take a plugin.
        ArgumentError: an option or another argument that this graph, library or GPU does not take.
        BuildStoppedError: somebody else ended the process.
        BuildCrashedError: the process crashed.
        StepError: the build failed otherwise.
        KeyboardInterrupt: the build was interrupted; the process has ended.
    """
    failure: StepError | None = None
    result: BuildResult | None = None
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr,
        subprocess.Popen(
            child_command("step_export.engines.worker"),
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
            failure = error
            _stop(process)
        except BaseException:
            _stop(process)
            raise
        process.wait()
        stderr.seek(0)
        said = [line.rstrip() for line in stderr if line.strip()]
    _add_to_log(request.log_file, said)
    if failure is not None:
        raise _with_stderr(failure, said) from failure
    if result is None:
        raise _crash(process.returncode, request, said)
    return result


def _environment(device: int) -> dict[str, str]:
    """Shows the process one GPU alone: the library builds on the first that it sees."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(index) for index in range(device + 1)] if shown is None else shown.split(",")
    return {**os.environ, "CUDA_VISIBLE_DEVICES": devices[device] if device < len(devices) else ""}


def _listen(
    process: "subprocess.Popen[str]", request: BuildRequest, progress: Callable[[str, float], None]
) -> BuildResult | None:
    """Reads events until the process ends; returns None if it ended without a result."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request.model_dump_json(by_alias=True) + "\n")
        process.stdin.flush()  # and left open: its end is the wish to stop
    except BrokenPipeError:
        return None
    for line in process.stdout:
        event = BuildEvent.model_validate_json(line)
        if event.failure is not None:
            raise event.failure.error()
        if event.done is not None:
            return event.done
        if event.progress is not None:
            progress(event.progress.phase, event.progress.fraction)
    return None


def _stop(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_CANCEL_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _add_to_log(log_file: Path, said: list[str]) -> None:
    """Adds standard error, which holds what the log has not: what callbacks raised, and a crash's last words."""
    lines = [line if line.startswith(_ERROR) else f"[STDERR] {line}" for line in said]
    with contextlib.suppress(OSError):  # the log is the lesser loss; the disk that is full is reported anyway
        if lines:
            with log_file.open("a", encoding="utf-8") as log:
                log.write("\n".join(lines) + "\n")


def _with_stderr(failure: StepError, said: list[str]) -> StepError:
    """Adds what the library says of an exception in a callback, on standard error and only there."""
    refusal = re.search(r"\bPluginError: (.*)", "\n".join(said))
    if refusal is not None:
        return PluginsRefusedError(refusal[1].strip())
    causes = _callback_errors(said)
    return type(failure)(f"{failure}; it also said: {causes}" if causes else str(failure))


def _callback_errors(said: list[str]) -> str:
    """Returns the first few, each once: what follows are consequences."""
    errors = dict.fromkeys(line.removeprefix(_ERROR).strip() for line in said if line.startswith(_ERROR))
    return "; ".join(list(errors)[:_MOST_ERRORS])


def _crash(returncode: int, request: BuildRequest, said: list[str]) -> StepError:
    how = f"was ended by {_signal_name(-returncode)}" if returncode < 0 else f"ended with exit code {returncode}"
    last_words = _callback_errors(said) or (said[-1].strip() if said else "")
    what = f"the build process of {Path(request.onnx_file).name} with {request.options.library} {how}"
    what += f": {last_words}" if last_words else ""
    if -returncode in (signal.SIGINT, signal.SIGTERM):
        return BuildStoppedError(f"{what}; the bundle is as it was; build again")
    # A shell that is told "killed" by the system usually ran out of memory.
    out_of_memory = -returncode == signal.SIGKILL
    return BuildCrashedError(what, "free memory, then build again" if out_of_memory else "please report it")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
