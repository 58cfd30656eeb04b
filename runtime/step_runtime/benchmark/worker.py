"""A process that loads one way of running a model and times calls when it is told to.

Lines of JSON come by standard input and go by what was standard output; what a library prints goes to standard error.

    {"way": {...}, "clips": "clips.npy"}  ->  {"device": "...", "load_s": 1.2}, or {"error": "..."}
    {"calls": 3}                          ->  {"times_s": [...]}, or {"error": "..."}
    {"end": true}                         ->  {"host_bytes": ..., "device_bytes": ...}
"""

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import numpy as np

from step.errors import StepError
from step_runtime.backends.base import Backend
from step_runtime.backends.select import BackendName, open_backend
from step_runtime.benchmark.ways import Way


def main() -> None:
    """Answers until it is told to end, or its input does."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    call: Callable[[], object] = _nothing
    for line in sys.stdin:
        request = json.loads(line)
        if "end" in request:
            answer: dict[str, Any] = {"host_bytes": _host_bytes(), "device_bytes": _device_bytes()}
        else:
            try:
                if "way" in request:
                    call, answer = _load(request)
                else:
                    answer = {"times_s": _time_calls(call, request["calls"])}
            except StepError as error:
                answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "end" in request:
            return


def _nothing() -> object:
    raise StepError("nothing is loaded")


def _load(request: dict[str, Any]) -> tuple[Callable[[], object], dict[str, Any]]:
    way = Way.from_dict(request["way"])
    clips = np.load(request["clips"])
    began_s = time.perf_counter()
    backend = _open(way)
    context = _context(way)
    frames = np.ascontiguousarray(np.resize(clips, (way.batch, *clips.shape[1:])))

    def call() -> object:
        with context():
            return backend.submit(frames).result()

    loaded_s = time.perf_counter() - began_s
    call()  # what a library does on its first call is no part of the others
    first_s = time.perf_counter() - began_s - loaded_s
    return call, {"device": backend.device, "load_s": loaded_s, "first_s": first_s}


def _open(way: Way) -> Backend:
    name = "torch" if way.backend.startswith("torch") else way.backend
    loop = None if name == "torch" else way.loop
    backend = open_backend(
        Path(way.model),
        backend=cast(BackendName, name),
        loop=loop,
        num_steps=way.num_steps,
        device=way.device,
        threads=way.threads,
    )
    if way.backend == "torch-compile":
        from step_runtime.backends.torch import TorchBackend

        assert isinstance(backend, TorchBackend)
        backend.compile()
    return backend


def _context(way: Way) -> Callable[[], AbstractContextManager[Any]]:
    if not way.backend.startswith("torch") or way.precision == "fp32":
        return contextlib.nullcontext
    import torch

    kind = "cuda" if torch.cuda.is_available() and way.device != "cpu" else "cpu"
    dtype = torch.bfloat16 if way.precision == "bf16" else torch.float16
    return lambda: torch.autocast(kind, dtype=dtype)


def _time_calls(call: Callable[[], object], count: int) -> list[float]:
    times_s = []
    for _ in range(count):
        began_s = time.perf_counter()
        call()  # returns when the results are on the host
        times_s.append(time.perf_counter() - began_s)
    return times_s


def _host_bytes() -> int:
    """The kernel's ru_maxrss begins with the size of the parent that this process was forked from; VmHWM does not."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if kilobytes is None else int(kilobytes))


def _device_bytes() -> int | None:
    """PyTorch's own count; other libraries do not say theirs."""
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch is not None and torch.cuda.is_available() else None


if __name__ == "__main__":
    main()
