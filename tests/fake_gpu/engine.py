"""A loaded engine."""

import functools
import math
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import onnxruntime as ort

from fake_gpu.context import FakeContext
from fake_gpu.cuda import FakeCuda
from fake_gpu.runtime_config import FakeRuntimeConfig


class Logger(Protocol):
    """Hears what the library says."""

    def log(self, severity: SimpleNamespace, message: str) -> None:
        """Takes a message; `severity.name` says how bad it is."""


class Library(Protocol):
    """Is what an engine knows of `FakeTensorRT`."""

    cuda: FakeCuda
    refuse_capture: bool
    loaded_caches: list[bytes]
    made_contexts: "list[weakref.ref[FakeContext]]"


@functools.lru_cache(maxsize=12)
def _session(onnx_file: Path) -> ort.InferenceSession:
    return ort.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])


class FakeEngine:
    """Computes an ONNX graph; every public name is one of `ICudaEngine` or said in `test_cuda`."""

    device_memory_size_v2 = 1000

    def __init__(self, trt: Library, logger: Logger, onnx_file: Path, batch: int) -> None:
        self.trt, self.logger, self.name, self.batch = trt, logger, onnx_file.stem, batch
        self.session = _session(onnx_file)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.tensors = {info.name: info for info in (*inputs, *outputs)}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        """See `ICudaEngine`."""
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> str:
        """See `ICudaEngine`."""
        kind = str(self.tensors[name].type).removeprefix("tensor(").removesuffix(")")
        return {"float": "float32"}.get(kind, kind)

    def get_tensor_shape(self, name: str) -> list[int]:
        """See `ICudaEngine`."""
        return [side if isinstance(side, int) else -1 for side in self.tensors[name].shape]

    def concrete_shape(self, name: str, batch: int) -> list[int]:
        """Returns a shape for a batch; its sides that depend on it are "batch" or, inside the graphs, as "34*batch"."""
        words = [str(side).split("*") for side in self.tensors[name].shape]
        return [math.prod(batch if word == "batch" else int(word) for word in side) for side in words]

    def create_runtime_config(self) -> FakeRuntimeConfig:
        """See `ICudaEngine`."""
        return FakeRuntimeConfig(self.trt.loaded_caches)

    def create_execution_context(self, strategy_or_config: str | FakeRuntimeConfig) -> FakeContext:
        """See `ICudaEngine`."""
        context = FakeContext(self, strategy_or_config)
        self.trt.made_contexts.append(weakref.ref(context))
        return context
