"""TensorRT and TensorRT-RTX on an NVIDIA GPU.

A clip's way: NumPy -> page-locked memory -> device (upload stream), then on the compute stream a copy into the engine's
input, the engines, and the download of the detections. Two clips may be under way: the upload of one goes on while the
other is computed. The host waits once a clip, for its detections.

Where the loop runs in two halves, the features come to the host in between and go back like frames: 19 MB a clip in
fp32, about what its frames have. Each half has a CUDA graph of its own.
"""

import contextlib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from step.anchors import anchor_tubes
from step.bundles.engines import check_batch
from step.bundles.graph_spec import RESULTS, Precision
from step.bundles.libraries import Library, load_library
from step.bundles.manifest import Manifest
from step.bundles.step_loop import graphs_that_run
from step.detections import Detections
from step.errors import ArgumentError, StepError
from step.parity.tolerances import held_to
from step.turns import Turns
from step_runtime.backends.base import Array, Features, Loop
from step_runtime.backends.cuda import Cuda, CudaRuntime, active_or_lost, give_back_later
from step_runtime.backends.engine import load_engines
from step_runtime.backends.engine_checks import check_present, check_runnable
from step_runtime.backends.engine_loop import EngineLoop, Part, byte_size, pinned_array
from step_runtime.backends.gpu_times import ClipTimes, GpuClock
from step_runtime.backends.gpus import Gpu, find_gpu
from step_runtime.tracing.tracer import GPU, GPU_UPLOAD, SILENT, Tracer

_SLOTS = 2


@dataclass(frozen=True)
class _Slot:
    """What one clip under way needs of its own: addresses, by tensor, and events."""

    index: int
    pinned: dict[str, int]
    device: dict[str, int]
    uploaded: int
    done: int
    times: ClipTimes


@dataclass
class _Call:
    """A clip under way.

    Attributes:
        slot: what it uses until its results are copied.
        batch: clips.
        part: of the loop.
        rows: its results, once they are copied: when somebody asks, or when another clip needs the slot.
    """

    _backend: "TensorRTBackend"
    slot: _Slot
    batch: int
    part: Part
    rows: list[Array] | None = None

    def result(self) -> Detections[Array]:
        """See `Pending.result`."""
        return Detections(*self._backend.collect(self))


@dataclass(frozen=True)
class LibraryOnGpu:
    """Where engines run.

    Attributes:
        name: of the library.
        trt: its module.
        cuda: the GPU's memory and streams.
        gpu: the GPU.
    """

    name: Library
    trt: Any
    cuda: Cuda
    gpu: Gpu


class TensorRTBackend:
    """A bundle's engines on a GPU; `open` finds both. See `Backend` for the attributes.

    Args:
        place: the library whose engines are run, and the GPU.
        folder: the bundle.
        manifest: what `read_bundle` returned for it.
        loop: the fused engine, or those of the step loop.
        num_steps: progressive steps to run; fewer than exported only in the step loop.
        cuda_graph: replay a recorded CUDA graph instead of launching kernel by kernel.
        tracer: records what host and GPU do, and when; engines that are one CUDA graph are one span.

    Raises:
        StepError: the library refuses an engine, or the GPU's memory is full; nothing stays allocated.
    """

    depth = _SLOTS
    threads: int | None = None

    def __init__(
        self,
        place: LibraryOnGpu,
        folder: Path,
        manifest: Manifest,
        *,
        loop: Loop,
        num_steps: int,
        cuda_graph: bool = True,
        tracer: Tracer = SILENT,
    ) -> None:
        cuda, library = place.cuda, place.name
        self._tracer = tracer
        self.name: str = library
        self.loop: Loop = loop
        self._gpu = place.gpu
        self.config = manifest.config
        self._bundle = folder
        self._engine_set = manifest.engines[library]
        self.min_batch = self._engine_set.options.min_batch
        self.max_batch: int | None = self._engine_set.options.max_batch
        self._cuda = cuda
        self._next_slot = 0
        self._under_way: dict[int, _Call] = {}  # by slot
        self._turns = Turns()
        with cuda.active(), contextlib.ExitStack() as stack:
            engines = load_engines(
                stack,
                trt=place.trt,
                folder=folder,
                manifest=manifest,
                library=library,
                names=list(graphs_that_run(loop, num_steps)),
                gpu=place.gpu,
                cuda_graph=cuda_graph,
            )
            self._loop = EngineLoop(
                cuda,
                engines,
                max_batch=self.max_batch,
                anchors_px=anchor_tubes(
                    self.config.anchor_mode, frames=self.config.chunk_frames, image_size_px=self.config.image_size_px
                ),
                results=RESULTS,
                capture=cuda_graph and library == "tensorrt",  # tensorrt-rtx records its own
            )
            stack.callback(self._loop.close)
            self._upload_stream = give_back_later(stack, cuda.destroy_stream, cuda.create_stream())
            clock = GpuClock(cuda, self._loop.stream, stack) if tracer.is_on else None
            # What traced clips need comes later, and goes before all that is here.
            events = stack.enter_context(contextlib.ExitStack())
            self._slots = [self._make_slot(stack, index, ClipTimes(cuda, clock, events)) for index in range(_SLOTS)]
            self._owned = stack.pop_all()

    @classmethod
    def open(
        cls,
        folder: Path,
        manifest: Manifest,
        *,
        library: Library,
        loop: Loop,
        num_steps: int,
        device: str,
        cuda_graph: bool = True,
        tracer: Tracer = SILENT,
    ) -> Self:
        """Finds the GPU and the library, and checks that the engines are for both.

        Args:
            folder, manifest, loop, num_steps, cuda_graph, tracer: see the class.
            library: which engines.
            device: "auto", "cuda" or "cuda:N".

        Raises:
            StepError: what is missing, and what would work.
        """
        if device == "cpu":
            raise ArgumentError(
                f"`device` cpu with `backend` {library}, which runs on a GPU; `backend` onnxruntime can"
            )
        check_present(folder, manifest, library, device)
        gpu = find_gpu(device)
        trt = load_library(library)
        check_runnable(folder, manifest, library, version=trt.__version__, gpu=gpu)
        return cls(
            LibraryOnGpu(name=library, trt=trt, cuda=CudaRuntime(gpu.index), gpu=gpu),
            folder,
            manifest,
            loop=loop,
            num_steps=num_steps,
            cuda_graph=cuda_graph,
            tracer=tracer,
        )

    @property
    def precision(self) -> Precision:
        """See `Backend`."""
        return held_to(self._engine_set.precision, tf32=self._engine_set.options.tf32)

    @property
    def device(self) -> str:
        """The GPU, and what it does without."""
        problem = self._loop.capture_problem
        without = "" if problem is None else f", without a CUDA graph: {problem}"
        return f"{self._gpu.name} (cuda:{self._gpu.index}, {self._gpu.capability}){without}"

    def submit(self, frames: NDArray[np.uint8]) -> _Call:
        """See `Backend.submit`.

        Raises:
            StepError: more or fewer clips than the engines take, or CUDA fails.
        """
        return self._start("all", {"frames": frames})

    def extract(self, frames: NDArray[np.uint8]) -> Features:
        """See `TakesFeatures.extract`; waits for the clips that are under way too.

        Raises:
            StepError: see `submit`.
        """
        with self._turns.taken():
            with self._cuda.active():
                call = self._enqueue("backbone", {"frames": frames})
            rows = self._collected(call)
            self._next_slot = call.slot.index  # it is free again at once; the other may be under way
        found = dict(zip(self._loop.tensor_names("backbone"), rows, strict=True))
        return Features(found["features"], found.get("context"))

    def submit_features(self, clip: Features) -> _Call:
        """See `TakesFeatures.submit_features`.

        Raises:
            StepError: see `submit`.
        """
        return self._start("rest", clip.inputs)

    def _start(self, part: Part, inputs: Mapping[str, Array]) -> _Call:
        with self._turns.taken(), self._cuda.active():
            return self._enqueue(part, inputs)

    def _enqueue(self, part: Part, inputs: Mapping[str, Array]) -> _Call:
        batch = len(next(iter(inputs.values())))
        check_batch(self._engine_set, self._bundle, batch)
        cuda, loop = self._cuda, self._loop
        slot = self._slots[self._next_slot]
        if slot.index in self._under_way:  # its result was not asked for yet
            self._collected(self._under_way[slot.index])
        with self._tracer.span("warm up"):  # which a new number of clips takes
            loop.set_batch(batch, part)
        results = loop.tensor_names(part)
        self._reserve(slot, pinned=[*inputs, *results], device=inputs)
        tensors = {name: loop.tensor(name) for name in (*inputs, *results)}
        sizes = {name: byte_size(tensor, batch) for name, (tensor, _) in tensors.items()}
        with self._tracer.span("to page-locked"):
            for name, array in inputs.items():
                pinned_array(slot.pinned[name], array.shape, array.dtype.name)[...] = array
        times = slot.times
        times.clear()
        times.begin(GPU_UPLOAD, self._upload_stream)
        for name in inputs:
            cuda.upload(slot.device[name], slot.pinned[name], sizes[name], self._upload_stream)
        times.mark(GPU_UPLOAD, "upload", self._upload_stream)
        cuda.record(slot.uploaded, self._upload_stream)
        cuda.wait(loop.stream, slot.uploaded)
        times.begin(GPU, loop.stream)
        for name in inputs:
            cuda.copy(tensors[name][1], slot.device[name], sizes[name], loop.stream)
        times.mark(GPU, "copy", loop.stream)
        loop.launch(part, done=functools.partial(times.mark, GPU, stream=loop.stream))
        for name in results:
            cuda.download(slot.pinned[name], tensors[name][1], sizes[name], loop.stream)
        times.mark(GPU, "download", loop.stream)
        cuda.record(slot.done, loop.stream)
        self._next_slot = (slot.index + 1) % _SLOTS
        call = self._under_way[slot.index] = _Call(self, slot, batch, part)
        return call

    def collect(self, call: _Call) -> list[Array]:
        """Waits for a clip and copies its results, since the page-locked memory is used again."""
        if call.rows is not None:
            return call.rows
        with self._turns.taken():
            return self._collected(call)

    def _collected(self, call: _Call) -> list[Array]:
        if call.rows is None:
            call.rows = self._wait(call.slot, call.batch, call.part)
        return call.rows

    def _wait(self, slot: _Slot, batch: int, part: Part) -> list[Array]:
        with self._cuda.active():
            with self._tracer.span("wait for the GPU", waits_for=GPU):
                self._cuda.synchronize_event(slot.done)
            self._under_way.pop(slot.index, None)
            slot.times.report(self._tracer)
        tensors = {name: self._loop.tensor(name)[0] for name in self._loop.tensor_names(part)}
        return [
            pinned_array(slot.pinned[name], tensor.concrete_shape(batch), tensor.dtype).copy()
            for name, tensor in tensors.items()
        ]

    def close(self) -> None:
        """See `Backend.close`."""
        self._turns.close(self._free)

    def _free(self) -> None:
        with active_or_lost(self._cuda):
            with contextlib.suppress(StepError):  # a lost device has nothing under way
                # What is under way still reads and writes what is freed next.
                self._cuda.synchronize_stream(self._upload_stream)
                self._cuda.synchronize_stream(self._loop.stream)
            self._owned.close()

    def _make_slot(self, stack: contextlib.ExitStack, index: int, times: ClipTimes) -> _Slot:
        slot = _Slot(
            index=index,
            pinned={},
            device={},
            uploaded=give_back_later(stack, self._cuda.destroy_event, self._cuda.create_event()),
            done=give_back_later(stack, self._cuda.destroy_event, self._cuda.create_event()),
            times=times,
        )
        self._fill(stack, slot, pinned=["frames", *self._loop.results], device=["frames"])
        return slot

    def _reserve(self, slot: _Slot, *, pinned: Iterable[str], device: Iterable[str]) -> None:
        """Memory for what a slot has not carried before."""
        self._fill(self._owned, slot, pinned=pinned, device=device)

    def _fill(self, stack: contextlib.ExitStack, slot: _Slot, *, pinned: Iterable[str], device: Iterable[str]) -> None:
        cuda, batch = self._cuda, self._engine_set.options.max_batch
        for name in pinned:
            if name not in slot.pinned:
                address = cuda.allocate_pinned(byte_size(self._loop.tensor(name)[0], batch))
                slot.pinned[name] = give_back_later(stack, cuda.free_pinned, address)
        for name in device:
            if name not in slot.device:
                address = cuda.allocate(byte_size(self._loop.tensor(name)[0], batch))
                slot.device[name] = give_back_later(stack, cuda.free, address)
