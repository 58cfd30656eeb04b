"""A GPU and a TensorRT that record what they are told, and do it with ONNX Runtime on the CPU.

Nothing is done when it is asked for: work waits in its stream until the host synchronises, which is as late as a GPU
may be. A copy whose source was overwritten too early, or a result that was read too early, therefore shows.
"""

import contextlib
import ctypes
import functools
import math
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
from step_runtime.backends.gpus import Gpu

from step import StepError
from step.bundles.engines import BuildOptions, EngineRecord, EngineSet, this_platform
from step.bundles.manifest import read_bundle, write_manifest
from step.files.atomic import sha256

GPU = Gpu(index=0, name="Fake GPU", capability="sm89", memory_bytes=1 << 34, uuid="GPU-0")
VERSION = "11.4.0.106"


class FakeCuda:
    """`step_runtime.backends.cuda.Cuda`; `calls` is what it was told, in order."""

    def __init__(self, *, fail_at: str | None = None):
        self.is_lost = False  # then every call fails
        self.depth = 0  # blocks of `active` that the caller is in
        self.calls: list[str] = []
        self.memory: dict[int, ctypes.Array] = {}
        self.handles: set[int] = set()
        self.queues: dict[int, deque] = {}
        self.recording: dict[int, list] = {}
        self.graphs: dict[int, list] = {}
        self.recorded: dict[int, int] = {}  # event -> times it was recorded
        self.happened: dict[int, int] = {}
        self.happened_ns: dict[int, int] = {}
        self.timed: set[int] = set()
        self.recorded_on: dict[int, int] = {}  # event -> stream
        self._next = 1
        self._fail_at = fail_at

    @property
    def leaks(self) -> int:
        return len(self.memory) + len(self.handles) + len(self.graphs)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        assert call == "active" or self.depth or self.is_lost, f"{call} outside of active()"
        if self.is_lost or call == self._fail_at:
            raise StepError(f"the fake GPU fails at {call}")

    def _handle(self) -> int:
        self._next += 1
        return self._next

    @contextlib.contextmanager
    def active(self):
        self._note("active")
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def _allocate(self, size):
        memory = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(memory)
        self.memory[address] = memory
        return address

    def allocate(self, size):
        self._note("allocate")
        return self._allocate(size)

    def allocate_pinned(self, size):
        self._note("allocate_pinned")
        return self._allocate(size)

    def free(self, address):
        self._note("free")
        del self.memory[address]

    def free_pinned(self, address):
        self._note("free_pinned")
        del self.memory[address]

    def create_stream(self):
        self._note("create_stream")
        stream = self._handle()
        self.handles.add(stream)
        self.queues[stream] = deque()
        return stream

    def destroy_stream(self, stream):
        self._note("destroy_stream")
        self.handles.remove(stream)

    def create_event(self):
        self._note("create_event")
        event = self._handle()
        self.handles.add(event)
        self.recorded[event] = self.happened[event] = 0
        return event

    def create_timed_event(self):
        event = self.create_event()
        self.timed.add(event)
        return event

    def elapsed_ms(self, start, end):
        self._note("elapsed_ms")
        assert {start, end} <= self.timed
        for event in (start, end):
            assert self.recorded[event] == self.happened[event] > 0, "it has not happened yet"
        return (self.happened_ns[end] - self.happened_ns[start]) / 1e6

    def destroy_event(self, event):
        self._note("destroy_event")
        self.handles.remove(event)

    def enqueue(self, stream, work) -> None:
        """Work that waits in its stream, or is recorded."""
        if stream in self.recording:
            self.recording[stream].append(work)
        else:
            self.queues[stream].append(work)

    def upload(self, to, pinned, size, stream):
        self._note("upload")
        self.enqueue(stream, lambda: ctypes.memmove(to, pinned, size))

    def download(self, pinned, source, size, stream):
        self._note("download")
        self.enqueue(stream, lambda: ctypes.memmove(pinned, source, size))

    def copy(self, to, source, size, stream):
        self._note("copy")
        self.enqueue(stream, lambda: ctypes.memmove(to, source, size))

    def record(self, event, stream):
        self._note("record")
        self.recorded[event] += 1
        number = self.recorded[event]
        self.recorded_on[event] = stream
        self.enqueue(stream, lambda: self._happens(event, number))

    def _happens(self, event, number) -> None:
        self.happened[event] = number
        self.happened_ns[event] = time.perf_counter_ns()

    def wait(self, stream, event):
        self._note("wait")
        number = self.recorded[event]
        self.enqueue(stream, lambda: self._run_until(event, number))

    def _run_until(self, event, number) -> None:
        """Does the work of the event's stream, in order, until the event happens; no other stream's."""
        while self.happened[event] < number:
            self.queues[self.recorded_on[event]].popleft()()

    def synchronize_event(self, event):
        self._note("synchronize_event")
        self._run_until(event, self.recorded[event])

    def synchronize_stream(self, stream):
        self._note("synchronize_stream")
        assert stream not in self.recording, "a stream that is being recorded cannot be waited for"
        while self.queues[stream]:
            self.queues[stream].popleft()()

    def begin_capture(self, stream):
        self._note("begin_capture")
        self.recording[stream] = []

    def end_capture(self, stream):
        works = self.recording.pop(stream)  # which ends even if it fails
        self._note("end_capture")
        graph = self._handle()
        self.graphs[graph] = works
        return graph

    def launch(self, graph, stream):
        self._note("launch")
        for work in self.graphs[graph]:
            self.enqueue(stream, work)

    def destroy_graph(self, graph):
        self._note("destroy_graph")
        del self.graphs[graph]


@dataclass
class FakeTensorRT:
    """The `tensorrt` or `tensorrt_rtx` module, as far as the backend uses it. An engine file holds its ONNX file's
    path and its batch."""

    cuda: FakeCuda
    __name__ = "tensorrt"
    __version__: str = VERSION
    refuse_capture: bool = False
    saved_caches: list[bytes] = field(default_factory=list)
    loaded_caches: list[bytes] = field(default_factory=list)
    DataType = SimpleNamespace(UINT8="uint8", HALF="float16", FLOAT="float32", INT64="int64")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")

    class ILogger:
        pass

    def Runtime(self, logger):  # noqa: N802 - the library's name
        return FakeRuntime(self, logger)


@dataclass
class FakeRuntime:
    trt: FakeTensorRT
    logger: object
    engine_host_code_allowed: bool = False

    def deserialize_cuda_engine(self, plan):
        path, _, batch = plan.decode(errors="replace").partition("|")
        if not Path(path).is_file():
            self.logger.log(SimpleNamespace(name="ERROR"), "the plan is\ndamaged")
            return None
        return FakeEngine(self.trt, self.logger, Path(path), int(batch))


@functools.lru_cache(maxsize=12)
def _session(onnx_file: Path) -> ort.InferenceSession:
    return ort.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])


class FakeEngine:
    device_memory_size_v2 = 1000

    def __init__(self, trt, logger, onnx_file, batch):
        self.trt, self.logger, self.name, self.batch = trt, logger, onnx_file.stem, batch
        self.session = _session(onnx_file)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.tensors = {info.name: info for info in (*inputs, *outputs)}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name):
        kind = self.tensors[name].type.removeprefix("tensor(").removesuffix(")")
        return {"float": "float32"}.get(kind, kind)

    def get_tensor_shape(self, name):
        return [side if isinstance(side, int) else -1 for side in self.tensors[name].shape]

    def concrete_shape(self, name, batch):
        """Sides that depend on the batch are "batch" or, inside the graphs, as "34*batch"."""
        words = [str(side).split("*") for side in self.tensors[name].shape]
        return [math.prod(batch if word == "batch" else int(word) for word in side) for side in words]

    def create_runtime_config(self):
        return FakeRuntimeConfig(self.trt)

    def create_execution_context(self, strategy_or_config):
        return FakeContext(self, strategy_or_config)


@dataclass
class FakeRuntimeConfig:
    trt: FakeTensorRT
    cuda_graph_strategy: str = "disabled"
    dynamic_shapes_kernel_specialization_strategy: str = "lazy"
    strategy: str = "static"
    cache: object = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return SimpleNamespace(
            deserialize=lambda content: self.trt.loaded_caches.append(content), serialize=lambda: b"compiled kernels"
        )

    def set_runtime_cache(self, cache):
        self.cache = cache


class FakeContext:
    def __init__(self, engine, strategy_or_config):
        self.engine, self.made_with = engine, strategy_or_config
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None
        self.batch = engine.batch

    def set_device_memory(self, memory, size):
        self.scratch = (memory, size)

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True

    def set_input_shape(self, name, shape):
        assert name in self.engine.tensors
        self.batch = shape[0]
        return True

    def get_tensor_shape(self, name):
        return self.engine.concrete_shape(name, self.batch)

    def execute_async_v3(self, stream):
        cuda, batch = self.engine.trt.cuda, self.batch
        cuda._note(f"run {self.engine.name}")
        if self.engine.trt.refuse_capture and stream in cuda.recording:
            self.engine.logger.log(SimpleNamespace(name="ERROR"), "cannot be captured")
            return False
        assert self.scratch is not None
        assert self.scratch[1] >= self.engine.device_memory_size_v2
        cuda.enqueue(stream, lambda: self._compute(batch))
        return True

    def _compute(self, batch):
        session = self.engine.session
        inputs = {info.name: self._array(info.name, batch).copy() for info in session.get_inputs()}
        names = [info.name for info in session.get_outputs()]
        for name, value in zip(names, session.run(names, inputs), strict=True):
            self._array(name, batch)[...] = value

    def _array(self, name, batch):
        shape = self.engine.concrete_shape(name, batch)
        dtype = np.dtype(self.engine.get_tensor_dtype(name))
        memory = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype=dtype).reshape(shape)


def add_fake_engines(bundle: Path, library="tensorrt", **changes) -> None:
    """Enters engines into a bundle's manifest whose files name the bundle's own graphs."""
    manifest = read_bundle(bundle)
    folder = bundle / "engines" / f"{library}-00000000"
    folder.mkdir(parents=True, exist_ok=True)
    records = {}
    for name, graph in manifest.graphs.items():
        path = folder / f"{name}.engine"
        path.write_text(f"{bundle / graph.file}|{changes.get('max_batch', 1)}")
        records[name] = EngineRecord(
            file=str(path.relative_to(bundle)),
            sha256=sha256(path),
            size_bytes=path.stat().st_size,
            onnx_sha256=graph.sha256,
            log_file="",
            log_sha256="",
            layers_file="",
            build_s=0.0,
            layers={},
            plugins=(),
            scratch_bytes=1000,
            weights_bytes=0,
        )
    options = {"library": library} | {k: v for k, v in changes.items() if k in BuildOptions.model_fields}
    engines = EngineSet(
        options=BuildOptions.model_validate(options),
        engines=records,
        precision=manifest.precision,
        **{
            "version": VERSION,
            "platform": this_platform(),
            "gpu": GPU.name,
            "compute_capabilities": (GPU.capability,),
        }
        | {k: v for k, v in changes.items() if k in EngineSet.model_fields},
    )
    write_manifest(manifest.model_copy(update={"engines": {**manifest.engines, library: engines}}), bundle)
