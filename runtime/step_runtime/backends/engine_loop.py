"""The device side of running a clip: buffers, bindings, the order of launches, and the CUDA graph of it.

All buffers are allocated once. Engines read what others wrote where it lies; nothing goes to the host between them, and
the host waits for nothing but the end of a clip.
"""

import contextlib
import ctypes
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from step.bundles.graph_spec import INPUT_TUBES_PX, NEXT_TUBES_PX, TensorSpec
from step.errors import StepError
from step.turns import MOST_BATCHES
from step_runtime.backends.base import Array
from step_runtime.backends.cuda import Cuda, give_back_later
from step_runtime.backends.cuda_graph import capture_graph
from step_runtime.backends.engine import Engine

Part = Literal["all", "backbone", "rest"]
"""Which engines: all of them; the first; all but the first."""

_ANCHORS = "anchors"


@dataclass
class _Prepared:
    """What there is for one number of clips.

    Attributes:
        graphs: by part; None where the library does something that cannot be recorded.
        problem: why there is no graph of a part; None where there is no such part.
    """

    graphs: dict[Part, int | None] = field(default_factory=dict)
    problem: str | None = None


class EngineLoop:
    """Engines that run one after the other on one stream.

    Args:
        cuda: the GPU.
        engines: in the order of their runs: the fused one alone, or backbone, steps, detect.
        max_batch: most clips a call.
        anchors_px: float32 [N, T, 4], the first step's input tubes.
        results: names of the tensors that are wanted in the end.
        capture: record the launches as one CUDA graph, and replay it.

    Raises:
        StepError: CUDA or an engine fails; everything allocated until then is freed.
    """

    def __init__(
        self,
        cuda: Cuda,
        engines: Sequence[Engine],
        *,
        max_batch: int,
        anchors_px: NDArray[np.float32],
        results: Sequence[str],
        capture: bool,
    ) -> None:
        self._cuda = cuda
        self._engines = engines
        self._max_batch = max_batch
        self._capture = capture
        self._prepared: OrderedDict[int, _Prepared] = OrderedDict()  # by clips of a call; the last used comes last
        self._batch: int | None = None
        self._buffers: dict[str, int] = {}
        with contextlib.ExitStack() as stack:
            self.stream = give_back_later(stack, cuda.destroy_stream, cuda.create_stream())
            self._allocate(stack)
            self._upload_anchors(anchors_px)
            self.results = {name: self.tensor(name) for name in results}
            self._owned = stack.pop_all()

    @property
    def frames(self) -> tuple[TensorSpec, int]:
        """The first engine's input: what it is and where it lies."""
        return self.tensor("frames")

    def tensor(self, name: str) -> tuple[TensorSpec, int]:
        """An input or output: what it is, of the last engine that has it, and where it lies."""
        specs = {t.name: t for engine in self._engines for t in (*engine.spec.inputs, *engine.spec.outputs)}
        return specs[name], self._buffers[name]

    def tensor_names(self, part: Part) -> list[str]:
        """What a part of the loop leaves for whoever runs the next: the first engine's outputs, or the results."""
        return [tensor.name for tensor in self._engines[0].spec.outputs] if part == "backbone" else list(self.results)

    @property
    def capture_problem(self) -> str | None:
        """Why calls of as many clips as were set last run without a CUDA graph; None where they need no reason."""
        return None if self._batch is None else self._prepared[self._batch].problem

    def set_batch(self, batch: int, part: Part = "all") -> None:
        """Prepares for calls of this many clips: shapes, and the first time a warm-up and the part's graph.

        Raises:
            StepError: an engine does not take so many clips, or CUDA fails.
        """
        if batch != self._batch:
            self._batch = None
            if batch in self._prepared:
                self._prepared.move_to_end(batch)
                for engine in self._engines:
                    engine.set_batch(batch)  # its shapes are set already: nothing of it can fail
            else:
                self._prepare(batch)
            self._batch = batch
        if self._capture and part not in self._prepared[batch].graphs:
            prepared = self._prepared[batch]
            captured = capture_graph(self._cuda, self.stream, lambda: self._enqueue(part))
            prepared.graphs[part] = captured.graph
            prepared.problem = prepared.problem or captured.problem

    def _prepare(self, batch: int) -> None:
        self._cuda.synchronize_stream(self.stream)  # clips of another number may be under way
        while len(self._prepared) >= MOST_BATCHES:
            self._drop(next(iter(self._prepared)))
        try:
            for engine in self._engines:
                engine.set_batch(batch)
            # The first run of a shape allocates and compiles, which a recording must not.
            self._enqueue("all")
            self._cuda.synchronize_stream(self.stream)
        except BaseException:
            with contextlib.suppress(StepError):
                self._cuda.synchronize_stream(self.stream)  # engines before the one that failed are under way
            self._drop(batch)
            raise
        for engine in self._engines:
            engine.save_runtime_cache()
        self._prepared[batch] = _Prepared()

    def launch(self, part: Part = "all", *, done: Callable[[str], None] = lambda _name: None) -> None:
        """Puts one pass over a part's engines into the stream.

        Args:
            part: which engines.
            done: is called after each of them is put there, with its name, or after all in one CUDA graph.
        """
        prepared = None if self._batch is None else self._prepared[self._batch]
        graph = None if prepared is None else prepared.graphs.get(part)
        if graph is not None:
            self._cuda.launch(graph, self.stream)
            names = [engine.spec.name for engine in self._of(part)]
            done(names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}")
        else:
            self._enqueue(part, done)

    def close(self) -> None:
        """Frees everything; what a lost device cannot free is gone with it."""
        with contextlib.suppress(StepError):
            self._cuda.synchronize_stream(self.stream)
            for engine in self._engines:
                engine.save_runtime_cache()  # kernels for a new shape may have been compiled meanwhile
        for batch in list(self._prepared):
            self._drop(batch)
        for engine in self._engines:
            engine.close()
        self._owned.close()

    def _allocate(self, stack: contextlib.ExitStack) -> None:
        """One buffer per tensor name, as large as the largest that has it; the steps' tubes each have their own."""
        sizes: dict[str, int] = {_ANCHORS: 0}
        bindings: list[dict[str, str]] = []
        tubes = _ANCHORS
        for engine in self._engines:
            own = {INPUT_TUBES_PX: tubes, NEXT_TUBES_PX: f"{engine.spec.name}/{NEXT_TUBES_PX}"}
            binding = {t.name: own.get(t.name, t.name) for t in (*engine.spec.inputs, *engine.spec.outputs)}
            for tensor in (*engine.spec.inputs, *engine.spec.outputs):
                name = binding[tensor.name]
                sizes[name] = max(sizes.get(name, 0), byte_size(tensor, self._max_batch))
            tubes = binding.get(NEXT_TUBES_PX, tubes)
            bindings.append(binding)
        for name, size in sizes.items():
            if size:
                self._buffers[name] = self._device_memory(stack, size)
        scratch_bytes = max(engine.scratch_bytes for engine in self._engines)
        scratch = self._device_memory(stack, scratch_bytes) if scratch_bytes else 0
        for engine, binding in zip(self._engines, bindings, strict=True):
            if engine.scratch_bytes:
                engine.set_scratch(scratch, scratch_bytes)
            engine.bind({tensor: self._buffers[name] for tensor, name in binding.items()})

    def _device_memory(self, stack: contextlib.ExitStack, size: int) -> int:
        return give_back_later(stack, self._cuda.free, self._cuda.allocate(size))

    def _upload_anchors(self, anchors_px: NDArray[np.float32]) -> None:
        if _ANCHORS not in self._buffers:
            return
        tubes_px = np.repeat(anchors_px[None], self._max_batch, axis=0)
        with contextlib.ExitStack() as stack:
            pinned = give_back_later(stack, self._cuda.free_pinned, self._cuda.allocate_pinned(tubes_px.nbytes))
            pinned_array(pinned, tubes_px.shape, "float32")[...] = tubes_px
            self._cuda.upload(self._buffers[_ANCHORS], pinned, tubes_px.nbytes, self.stream)
            self._cuda.synchronize_stream(self.stream)

    def _of(self, part: Part) -> Sequence[Engine]:
        return {"all": self._engines, "backbone": self._engines[:1], "rest": self._engines[1:]}[part]

    def _enqueue(self, part: Part, done: Callable[[str], None] = lambda _name: None) -> None:
        for engine in self._of(part):
            engine.enqueue(self.stream)
            done(engine.spec.name)

    def _drop(self, batch: int) -> None:
        """Frees what a number of clips has; none of it may be under way."""
        prepared = self._prepared.pop(batch, _Prepared())
        for graph in prepared.graphs.values():
            if graph is not None:
                with contextlib.suppress(StepError):
                    self._cuda.destroy_graph(graph)
        for engine in self._engines:
            engine.forget_batch(batch)


def byte_size(tensor: TensorSpec, batch: int) -> int:
    """Bytes of a tensor for this many clips."""
    return int(np.prod(tensor.concrete_shape(batch))) * np.dtype(tensor.dtype).itemsize


def pinned_array(address: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Page-locked memory seen as an array."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    array: Array = np.frombuffer(memoryview(memory), dtype=np.dtype(dtype)).reshape(shape)
    return array
