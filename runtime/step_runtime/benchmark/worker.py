"""A process that loads one way of running a model and times calls when it is told to.

Lines of JSON come by standard input and go by what was standard output; what a library prints goes to standard error.

    {"way": {...}, "clips": "clips.npy"}  ->  {"device": "...", "load_s": 1.2}, or {"error": "..."}
    {"calls": 3}                          ->  {"times_s": [...]}, or {"error": "..."}
    {"data": "...", "split": "val", ...}  ->  {"mean_ap": 0.8}, or {"error": "..."}
    {"memory": true}                      ->  {"host_bytes": ..., "device_bytes": ...}
"""

import contextlib
import json
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

from step.bundles.graph_spec import BACKBONE, DETECT, FUSED, step_graph_name
from step.bundles.manifest import read_bundle
from step.checkpoints.toy_model import find_model
from step.data.dataset_folder import DatasetFolder
from step.errors import StepError
from step.evaluation.scoring import score_files
from step_runtime.backends.base import Backend
from step_runtime.backends.select import BackendName, open_backend
from step_runtime.benchmark.clip_cache import ClipCache
from step_runtime.benchmark.configurations import Way
from step_runtime.benchmark.gpu_meter import GpuMeter
from step_runtime.detector import Detector
from step_runtime.evaluation.dataset_run import write_results

_IOU = 0.5


@dataclass(frozen=True)
class _Loaded:
    """A way that can be called."""

    way: Way
    backend: Backend
    context: Callable[[], AbstractContextManager[Any]]
    frames: NDArray[np.uint8]

    @property
    def gpu(self) -> int | None:
        """The GPU's index; None on a CPU."""
        device = self.backend.device.partition(",")[0] if self.way.is_torch else self.way.device
        on_gpu = device.startswith("cuda") if self.way.is_torch else self.way.uses_gpu
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
        request = json.loads(line)
        try:
            if "way" in request:
                loaded, answer = _load(request)
            elif loaded is None:
                raise StepError("nothing is loaded")
            elif "data" in request:
                answer = {"mean_ap": _mean_ap(loaded, Path(request["data"]), request["split"], Path(request["cache"]))}
            elif "calls" in request:
                answer = {"times_s": _time_calls(loaded, request["calls"])}
            else:
                answer = {"host_bytes": _host_bytes(), "device_bytes": _device_bytes(loaded.gpu)}
        except StepError as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {"error": "memory does not suffice for it; give a smaller --batch"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _load(request: dict[str, Any]) -> tuple[_Loaded, dict[str, Any]]:
    way = Way.from_dict(request["way"])
    clips = np.load(request["clips"])
    began_s = time.perf_counter()
    frames = np.ascontiguousarray(np.resize(clips, (way.batch, *clips.shape[1:])))
    loaded = _Loaded(way, _open(way), _context(way), frames)
    loaded_s = time.perf_counter() - began_s
    loaded.call()  # what a library does on its first call is no part of the others
    first_s = time.perf_counter() - began_s - loaded_s
    model_bytes, build_s = _files(way)
    return loaded, {
        "device": loaded.backend.device,
        "gpu": loaded.gpu,
        "load_s": loaded_s,
        "first_s": first_s,
        "model_bytes": model_bytes,
        "build_s": build_s,
    }


def _open(way: Way) -> Backend:
    flavour = way.flavour
    if flavour is not None and not way.has_cuda_graph:
        from step_runtime.backends.tensorrt import TensorRTBackend

        manifest = read_bundle(Path(way.model))
        steps = way.num_steps or manifest.num_steps
        return TensorRTBackend.open(
            Path(way.model),
            manifest,
            flavour=flavour,
            loop=way.loop,
            num_steps=steps,
            device=way.device,
            cuda_graph=False,
        )
    backend = open_backend(
        Path(way.model),
        backend="torch" if way.is_torch else cast(BackendName, way.backend.removesuffix("-cuda")),
        loop=None if way.is_torch else way.loop,
        num_steps=way.num_steps,
        device=way.device,
        threads=way.threads,
    )
    if way.backend in ("torch-plain", "torch-compile"):
        from step_runtime.backends.torch import TorchBackend

        assert isinstance(backend, TorchBackend)
        if way.backend == "torch-plain":
            backend.use_own_pools()
        else:
            backend.compile()
    return backend


def _files(way: Way) -> tuple[int, float | None]:
    """Bytes of the files that the way loads, and seconds that its engines took to build."""
    folder = find_model(Path(way.model))
    if way.is_torch:
        return folder.stat().st_size, None
    manifest = read_bundle(folder)
    steps = [step_graph_name(step) for step in range(way.num_steps or manifest.num_steps)]
    names = [FUSED] if way.loop == "fused" else [BACKBONE, *steps, DETECT]
    if way.flavour is None:
        return sum((folder / manifest.graphs[name].file).stat().st_size for name in names), None
    engines = [manifest.engines[way.flavour].engines[name] for name in names]
    return sum(engine.size_bytes for engine in engines), sum(engine.build_s for engine in engines)


def _context(way: Way) -> Callable[[], AbstractContextManager[Any]]:
    if not way.is_torch or way.precision == "fp32":
        return contextlib.nullcontext
    import torch

    kind = "cuda" if torch.cuda.is_available() and way.device != "cpu" else "cpu"
    dtype = torch.bfloat16 if way.precision == "bf16" else torch.float16
    return lambda: torch.autocast(kind, dtype=dtype)


def _mean_ap(loaded: _Loaded, folder: Path, split: str, cache: Path) -> float:
    """frame-mAP at 0.5 after the last step that the way runs."""
    data = DatasetFolder.open(folder, split)
    clips = ClipCache(data, loaded.backend.config, cache)
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
