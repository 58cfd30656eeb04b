"""A process that loads one configuration of a model and times calls when it is asked to.

Requests come by standard input and answers go by what was standard output, as `step_runtime.benchmark.messages` has
both; what a library prints goes to standard error.
"""

import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from step.bundles.manifest import read_bundle
from step.bundles.step_loop import graphs_that_run
from step.checkpoints.toy_model import find_bundle, find_checkpoint
from step.data.dataset_folder import DatasetFolder
from step.errors import ArgumentError, StepError
from step.evaluation.scoring import score_files
from step.files.atomic import sha256
from step.shown import quoted
from step_runtime.backends.base import Backend
from step_runtime.backends.select import BackendName, open_backend
from step_runtime.benchmark.clip_cache import ClipCache
from step_runtime.benchmark.configurations import BenchConfiguration
from step_runtime.benchmark.gpu_meter import GpuMeter
from step_runtime.benchmark.messages import (
    REQUESTS,
    Answer,
    Failed,
    Load,
    Loaded,
    MeanAp,
    Memory,
    ScoreData,
    TellMemory,
    TimeCalls,
    Times,
)
from step_runtime.detector import Detector
from step_runtime.evaluation.dataset_run import write_results

_IOU = 0.5
_LONGEST_SAID = 100
_OPTIONS = {"backend": "--backends", "device": "--device", "num_steps": "--steps", "threads": "--threads"}
"""What `step-bench` calls the arguments that are told in errors."""


@dataclass(frozen=True)
class _Loaded:
    """A configuration that can be called."""

    configuration: BenchConfiguration
    backend: Backend
    context: Callable[[], AbstractContextManager[Any]]
    frames: NDArray[np.uint8]

    @property
    def gpu(self) -> int | None:
        """The GPU's index; None on a CPU."""
        device = self.backend.device.partition(",")[0] if self.configuration.is_torch else self.configuration.device
        on_gpu = device.startswith("cuda") if self.configuration.is_torch else self.configuration.uses_gpu
        return int(device.partition(":")[2] or 0) if on_gpu else None

    def call(self) -> None:
        """One call, until the results are on the host."""
        with self.context():
            self.backend.submit(self.frames).result()


def main() -> None:
    """Answers until its input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    loaded: _Loaded | None = None
    for line in sys.stdin:
        answer: Answer
        try:
            request = REQUESTS.validate_json(line)
            if isinstance(request, Load):
                loaded, answer = _load(request)
            elif loaded is None:
                raise StepError("nothing is loaded")
            else:
                answer = _answer(loaded, request)
        except ValidationError:
            answer = Failed(problem=f"{quoted(line.strip()[:_LONGEST_SAID])} is no request")
        except ArgumentError as error:
            answer = Failed(problem=error.naming(_OPTIONS))
        except StepError as error:
            answer = Failed(problem=str(error))
        except MemoryError:
            answer = Failed(problem="memory does not suffice for it; give a smaller --batch")
        answers.write(answer.model_dump_json() + "\n")
        answers.flush()


def _answer(loaded: _Loaded, request: TimeCalls | ScoreData | TellMemory) -> Answer:
    match request:
        case TimeCalls():
            return Times(times_s=_time_calls(loaded, request.count))
        case ScoreData():
            return MeanAp(mean_ap=_mean_ap(loaded, request))
        case TellMemory():
            return Memory(host_bytes=_host_bytes(), device_bytes=_device_bytes(loaded.gpu))


def _load(request: Load) -> tuple[_Loaded, Loaded]:
    configuration = request.configuration
    clips = np.load(request.clips)
    began_s = time.perf_counter()
    frames = np.ascontiguousarray(np.resize(clips, (configuration.batch, *clips.shape[1:])))
    loaded = _Loaded(configuration, _open(configuration), _context(configuration), frames)
    loaded_s = time.perf_counter() - began_s
    loaded.call()  # what a library does on its first call is no part of the others
    first_s = time.perf_counter() - began_s - loaded_s
    model_bytes, build_s = _files(configuration)
    return loaded, Loaded(
        device=loaded.backend.device,
        gpu=loaded.gpu,
        threads=loaded.backend.threads,
        load_s=loaded_s,
        first_s=first_s,
        model_bytes=model_bytes,
        build_s=build_s,
        source_sha256=_source_sha256(configuration),
    )


def _open(configuration: BenchConfiguration) -> Backend:
    library = configuration.library
    if library is not None and not configuration.has_cuda_graph:
        from step_runtime.backends.tensorrt import TensorRTBackend

        manifest = read_bundle(Path(configuration.model))
        steps = configuration.num_steps or manifest.num_steps
        return TensorRTBackend.open(
            Path(configuration.model),
            manifest,
            library=library,
            loop=configuration.loop,
            num_steps=steps,
            device=configuration.device,
            cuda_graph=False,
        )
    backend = open_backend(
        Path(configuration.model),
        backend="torch" if configuration.is_torch else cast(BackendName, configuration.backend.removesuffix("-cuda")),
        loop=None if configuration.is_torch else configuration.loop,
        num_steps=configuration.num_steps,
        device=configuration.device,
        threads=configuration.threads,
    )
    if configuration.backend in ("torch-plain", "torch-compile"):
        from step_runtime.backends.torch import TorchBackend

        assert isinstance(backend, TorchBackend)
        if configuration.backend == "torch-plain":
            backend.use_own_pools()
        else:
            backend.compile()
    return backend


def _files(configuration: BenchConfiguration) -> tuple[int, float | None]:
    """Bytes of the files that the configuration loads, and seconds that its engines took to build."""
    if configuration.is_torch:
        return find_checkpoint(configuration.model).stat().st_size, None
    folder = find_bundle(configuration.model)
    manifest = read_bundle(folder)
    names = graphs_that_run(configuration.loop, configuration.num_steps or manifest.num_steps)
    if configuration.library is None:
        return sum((folder / manifest.graphs[name].file).stat().st_size for name in names), None
    engines = [manifest.engines[configuration.library].engines[name] for name in names]
    return sum(engine.size_bytes for engine in engines), sum(engine.build_s for engine in engines)


def _source_sha256(configuration: BenchConfiguration) -> str:
    """Digest of the checkpoint that is run, or that the bundle was exported from."""
    model = (find_checkpoint if configuration.is_torch else find_bundle)(configuration.model)
    return sha256(model) if configuration.is_torch else read_bundle(model).source.sha256


def _context(configuration: BenchConfiguration) -> Callable[[], AbstractContextManager[Any]]:
    if not configuration.is_torch or configuration.precision == "fp32":
        return contextlib.nullcontext
    import torch

    kind = "cuda" if torch.cuda.is_available() and configuration.device != "cpu" else "cpu"
    dtype = torch.bfloat16 if configuration.precision == "bf16" else torch.float16
    return lambda: torch.autocast(kind, dtype=dtype)


def _mean_ap(loaded: _Loaded, request: ScoreData) -> float:
    data = DatasetFolder.open(request.data, request.split)
    clips = ClipCache(data, loaded.backend.config, request.cache)
    with tempfile.TemporaryDirectory() as scratch, loaded.context():
        output = Path(scratch) / "results.csv"
        write_results(Detector(loaded.backend), clips, output)
        return score_files(output, data.truth, label_map=data.label_map, exclude=data.exclude).mean_ap(_IOU)


def _time_calls(loaded: _Loaded, count: int) -> list[float]:
    times_s = []
    for _ in range(count):
        began_s = time.perf_counter()
        loaded.call()
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


def _device_bytes(gpu: int | None) -> int | None:
    """What the driver says that this process has on its GPU, or else what PyTorch says of its own."""
    if gpu is None:
        return None
    torch: Any = sys.modules.get("torch")
    in_torch = int(torch.cuda.max_memory_allocated(gpu)) if torch is not None and torch.cuda.is_available() else 0
    return GpuMeter(gpu).process_bytes(os.getpid()) or in_torch or None


if __name__ == "__main__":
    main()
