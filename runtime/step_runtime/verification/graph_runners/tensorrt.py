"""TensorRT and TensorRT-RTX, one engine at a time; with extra outputs, an engine that is built for them."""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from step.bundles.build_process import BuildRequest, run_build
from step.bundles.engines import check_batch
from step.bundles.graph_spec import Arrays, Precision, TensorSpec
from step.bundles.libraries import Library, load_library
from step.bundles.manifest import Manifest
from step.parity.tolerances import held_to
from step.turns import Turns
from step_runtime.backends.cuda import Cuda, CudaRuntime, active_or_lost, give_back_later
from step_runtime.backends.engine import Engine, Messages, make_runtime
from step_runtime.backends.engine_checks import check_runnable
from step_runtime.backends.engine_loop import byte_size, pinned_array
from step_runtime.backends.gpus import find_gpu


class TensorRTRunner:
    """See `GraphRunner`; `open` finds the GPU and the library.

    Args:
        trt: the library of `library`.
        cuda: the GPU's memory and streams.
        device: index of the GPU.
        bundle: folder.
        manifest: what `read_bundle` returned for it.
        library: which engines.
    """

    def __init__(
        self, *, trt: Any, cuda: Cuda, device: int, bundle: Path, manifest: Manifest, library: Library
    ) -> None:
        self.name = f"{library}:cuda:{device}"
        self.precision: Precision = held_to(manifest.precision, tf32=manifest.engines[library].options.tf32)
        self._trt = trt
        self._cuda = cuda
        self._device = device
        self._turns = Turns()
        self._bundle = bundle
        self._manifest = manifest
        self._engine_set = manifest.engines[library]
        self._messages = Messages(trt)
        self._runtime = make_runtime(trt, self._messages, self._engine_set.options)
        self._engines: dict[tuple[str, tuple[str, ...]], Engine] = {}

    @classmethod
    def open(cls, bundle: Path, manifest: Manifest, *, library: Library, device: str) -> Self:
        """See the class, and `TensorRTBackend.open` for `device` and what is raised."""
        gpu = find_gpu(device)
        trt = load_library(library)
        check_runnable(bundle, manifest, library, version=trt.__version__, gpu=gpu)
        return cls(
            trt=trt,
            cuda=CudaRuntime(gpu.index),
            device=gpu.index,
            bundle=bundle,
            manifest=manifest,
            library=library,
        )

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str] = ()) -> Arrays:
        """See `GraphRunner.run`; extra outputs take a build, and may change what the library fuses."""
        with self._turns.taken(), self._cuda.active():
            return self._run(graph, inputs, extra_outputs)

    def _run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str]) -> Arrays:
        own = {tensor.name for tensor in self._manifest.graphs[graph].outputs}
        extra_outputs = tuple(name for name in extra_outputs if name not in own)
        engine = self._engine(graph, extra_outputs)
        batch = len(inputs[engine.spec.inputs[0].name])
        check_batch(self._engine_set, self._bundle, batch)
        engine.set_batch(batch)
        outputs = [*engine.spec.outputs, *(engine.marked(name) for name in extra_outputs)]
        cuda = self._cuda
        with contextlib.ExitStack() as stack:
            stream = give_back_later(stack, cuda.destroy_stream, cuda.create_stream())
            addresses: dict[str, int] = {}
            pinned: dict[str, int] = {}
            for tensor in (*engine.spec.inputs, *outputs):
                size = byte_size(tensor, batch)
                addresses[tensor.name] = give_back_later(stack, cuda.free, cuda.allocate(size))
                pinned[tensor.name] = give_back_later(stack, cuda.free_pinned, cuda.allocate_pinned(size))
            if engine.scratch_bytes:
                scratch = give_back_later(stack, cuda.free, cuda.allocate(engine.scratch_bytes))
                engine.set_scratch(scratch, engine.scratch_bytes)
            engine.bind(addresses)
            for tensor in engine.spec.inputs:
                self._array(tensor, pinned, batch)[...] = _cast(inputs[tensor.name], tensor)
                cuda.upload(addresses[tensor.name], pinned[tensor.name], byte_size(tensor, batch), stream)
            engine.enqueue(stream)
            for tensor in outputs:
                cuda.download(pinned[tensor.name], addresses[tensor.name], byte_size(tensor, batch), stream)
            cuda.synchronize_stream(stream)
            return {tensor.name: self._array(tensor, pinned, batch).copy() for tensor in outputs}

    def close(self) -> None:
        """See `GraphRunner.close`."""
        self._turns.close(self._free)

    def _free(self) -> None:
        with active_or_lost(self._cuda):
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()

    @staticmethod
    def _array(tensor: TensorSpec, pinned: dict[str, int], batch: int) -> "np.ndarray[Any, Any]":
        return pinned_array(pinned[tensor.name], tensor.concrete_shape(batch), tensor.dtype)

    def _engine(self, graph: str, extra_outputs: tuple[str, ...]) -> Engine:
        key = graph, extra_outputs
        if key not in self._engines:
            if extra_outputs:
                self._free()  # a search opens many, each for a short time
            with tempfile.TemporaryDirectory() as folder:
                file = self._bundle / self._engine_set.engines[graph].file
                if extra_outputs:
                    file = self._build_marked(graph, extra_outputs, Path(folder))
                self._engines[key] = Engine(
                    trt=self._trt,
                    runtime=self._runtime,
                    messages=self._messages,
                    path=file,
                    spec=self._manifest.graphs[graph].spec(graph),
                    options=self._engine_set.options,
                    runtime_cache=None,
                    cuda_graph=False,
                )
        return self._engines[key]

    def _build_marked(self, graph: str, extra_outputs: tuple[str, ...], folder: Path) -> Path:
        options = self._engine_set.options
        if self._engine_set.plugin_problem is not None:  # the engines in the bundle were built without them, too
            options = options.model_copy(update={"plugins": False})
        request = BuildRequest(
            onnx_file=self._bundle / self._manifest.graphs[graph].file,
            engine_file=folder / f"{graph}.engine",
            log_file=folder / f"{graph}.log",
            layers_file=folder / f"{graph}.layers.json",
            options=options,
            mark_outputs=extra_outputs,
            device=self._device,
        )
        run_build(request, lambda _phase, _fraction: None)
        return request.engine_file


def _cast(values: "np.ndarray[Any, Any]", tensor: TensorSpec) -> "np.ndarray[Any, Any]":
    with np.errstate(over="ignore"):  # what half cannot hold becomes inf, which the comparison sees
        return values.astype(tensor.dtype)
