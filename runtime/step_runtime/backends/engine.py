"""One TensorRT engine with its one execution context; the same code for both libraries.

Sources: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/ExecutionContext.html,
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-cuda-graphs.html and
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-runtime-cache.html
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from step.bundles.engines import BuildOptions
from step.bundles.graph_spec import DType, GraphSpec, TensorSpec
from step.bundles.libraries import Library, library_logger, listening
from step.bundles.manifest import Manifest
from step.errors import StepError
from step.files.atomic import atomic_path
from step_runtime.backends.gpus import Gpu

_DTYPES: dict[DType, str] = {"uint8": "UINT8", "float16": "HALF", "float32": "FLOAT", "int64": "INT64"}


class Messages:
    """What the library said: it answers failures with False or None, and logs the reason.

    Args:
        trt: the library.
    """

    def __init__(self, trt: Any) -> None:
        self._trt = trt
        self._texts: list[str] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Every call of the library stands in such a block; what was said before it is forgotten."""
        self._texts.clear()
        with listening(self._trt, self._keep):
            yield

    def why(self) -> str:
        """The first error of the last call; those behind it are its consequences."""
        text = self._texts[0] if self._texts else "it gave no reason"
        if "memory" in text.lower():
            text += "; if the GPU is full, end what else runs on it, or build with a smaller batch"
        return text

    def _keep(self, severity: str, message: str) -> None:
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self._texts.append(" ".join(message.split()))


def make_runtime(trt: Any, messages: Messages, options: BuildOptions) -> Any:
    """What loads engines.

    Raises:
        StepError: the library cannot run here.
    """
    try:
        with messages.listening():
            runtime = trt.Runtime(library_logger(trt))
    except (TypeError, RuntimeError) as error:  # the bindings' word for an object that the library did not make
        raise StepError(f"{options.library} {trt.__version__} cannot run here: {messages.why()}") from error
    runtime.engine_host_code_allowed = options.version_compatible
    return runtime


class Engine:
    """A loaded engine, with an execution context for each number of clips that it is used for.

    A CUDA graph goes on using the context that it was recorded from, which must not change in the meantime: so another
    number of clips takes another context. They share their scratch memory and run one after the other.

    Args:
        trt: the library.
        runtime: a `trt.Runtime`.
        messages: hears what the library says.
        path: the engine file.
        spec: names, types and shapes that the engine must have.
        options: how it was built.
        runtime_cache: tensorrt-rtx: file of kernels compiled on this GPU by an earlier run; None keeps none.
        cuda_graph: tensorrt-rtx: whether the library records its own CUDA graph.

    Raises:
        StepError: the library refuses the file, or its tensors are not those of `spec`.
    """

    def __init__(
        self,
        *,
        trt: Any,
        runtime: Any,
        messages: Messages,
        path: Path,
        spec: GraphSpec,
        options: BuildOptions,
        runtime_cache: Path | None,
        cuda_graph: bool,
    ) -> None:
        self.spec = spec
        self._trt = trt
        self._runtime = runtime  # has to outlive its engines
        self._messages = messages
        self._cache_file = runtime_cache
        self._cache: Any = None
        self._config: Any = None
        self._is_dynamic = options.min_batch != options.max_batch
        self._name = f"{path}: {options.library}"
        self._scratch: tuple[int, int] | None = None
        self._addresses: dict[str, int] = {}
        self._contexts: dict[int, Any] = {}
        self._shaped: set[int] = set()  # whose context has its shapes, which are never set again: see the class
        with messages.listening():
            self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise StepError(f"{path}: {options.library} {trt.__version__} cannot load it: {messages.why()}")
        _check_tensors(trt, self._engine, spec, path)
        # The scratch memory is given by the caller: engines that run one after the other share it.
        self._made_with = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if options.library == "tensorrt-rtx":
            self._made_with = self._config = self._rtx_config(trt, self._made_with, cuda_graph)
        self._batch = options.opt_batch
        self._context = self._make_context()
        self._contexts[self._batch] = self._context
        self.scratch_bytes = int(self._engine.device_memory_size_v2)

    def set_scratch(self, address: int, size: int) -> None:
        """Device memory of at least `scratch_bytes`, for every context."""
        self._scratch = address, size
        for context in self._contexts.values():
            context.set_device_memory(address, size)

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Where every input and output, by name, lies on the device, for every context."""
        self._addresses = dict(addresses)
        for context in self._contexts.values():
            self._bind(context)

    def marked(self, name: str) -> TensorSpec:
        """What an output is that was marked when the engine was built and that `spec` does not know.

        Its shape is that of the batch that was set last.
        """
        kinds = {getattr(self._trt.DataType, kind): dtype for dtype, kind in _DTYPES.items()}
        return TensorSpec(name, kinds[self._engine.get_tensor_dtype(name)], tuple(self._context.get_tensor_shape(name)))

    def set_batch(self, batch: int) -> None:
        """Clips of the calls that follow; takes their context, or makes it."""
        if not self._is_dynamic:
            return
        if batch not in self._shaped:
            context = self._contexts.pop(batch, None)
            if context is None:
                context = self._make_context()
                if self._scratch is not None:
                    context.set_device_memory(*self._scratch)
                self._bind(context)
            self._shape(context, batch)
            self._contexts[batch] = context
            self._shaped.add(batch)
        self._context = self._contexts[batch]

    def forget_batch(self, batch: int) -> None:
        """Frees the context of a number of clips that nothing under way is using, and no CUDA graph either."""
        context = self._contexts.pop(batch, None)
        self._shaped.discard(batch)
        if context is self._context:
            self._context = None  # the next `set_batch` says which

    def enqueue(self, stream: int) -> None:
        """Puts one run into a stream."""
        with self._messages.listening():
            taken = self._context.execute_async_v3(stream)
        if not taken:
            raise StepError(f"{self.spec.name} failed on the GPU: {self._messages.why()}")

    def save_runtime_cache(self) -> None:
        """tensorrt-rtx: keeps the kernels that were compiled for this GPU, so that the next start is faster."""
        if self._cache is None or self._cache_file is None:
            return
        content = bytes(memoryview(self._cache.serialize()))
        if self._cache_file.is_file() and self._cache_file.read_bytes() == content:
            return
        with contextlib.suppress(StepError), atomic_path(self._cache_file) as path:  # a read-only bundle runs too
            path.write_bytes(content)

    def close(self) -> None:
        """Frees the contexts before what they were made with, the engine before its runtime."""
        self._context = None
        self._contexts.clear()
        self._shaped.clear()
        self._made_with = None
        self._config = None
        self._cache = None
        self._engine = None
        self._runtime = None

    def _make_context(self) -> Any:
        with self._messages.listening():
            context = self._engine.create_execution_context(self._made_with)
        if context is None:
            raise StepError(f"{self._name} could not make an execution context: {self._messages.why()}")
        return context

    def _shape(self, context: Any, batch: int) -> None:
        for tensor in self.spec.inputs:
            with self._messages.listening():
                taken = context.set_input_shape(tensor.name, tensor.concrete_shape(batch))
            if not taken:
                raise StepError(f"{self.spec.name}: does not take {batch} clips: {self._messages.why()}")

    def _bind(self, context: Any) -> None:
        for name, address in self._addresses.items():
            with self._messages.listening():
                taken = context.set_tensor_address(name, address)
            if not taken:
                raise StepError(f"{self.spec.name}: cannot bind {name}: {self._messages.why()}")

    def _rtx_config(self, trt: Any, strategy: Any, cuda_graph: bool) -> Any:
        config = self._engine.create_runtime_config()
        # Kernels for a profile's shapes are compiled at the first run of a shape, not in the background of later ones.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.set_execution_context_allocation_strategy(strategy)
        if cuda_graph:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._cache_file is None:
            return config
        self._cache = config.create_runtime_cache()
        if self._cache_file.is_file():
            self._cache.deserialize(self._cache_file.read_bytes())  # False for another GPU's: it starts empty then
        config.set_runtime_cache(self._cache)
        return config


def _check_tensors(trt: Any, engine: Any, spec: GraphSpec, path: Path) -> None:
    found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    for tensor in (*spec.inputs, *spec.outputs):
        if tensor.name not in found:
            raise StepError(f"{path}: has no tensor {tensor.name!r}; build the engine again")
        _check_tensor(trt, engine, tensor, path)


def _check_tensor(trt: Any, engine: Any, tensor: TensorSpec, path: Path) -> None:
    dtype = engine.get_tensor_dtype(tensor.name)
    if dtype != getattr(trt.DataType, _DTYPES[tensor.dtype]):
        raise StepError(f"{path}: {tensor.name} is {dtype}, the bundle says {tensor.dtype}; build the engine again")
    shape = tuple(engine.get_tensor_shape(tensor.name))
    fits = len(shape) == len(tensor.shape) and all(
        side == wanted or side < 0 or isinstance(wanted, str) for side, wanted in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise StepError(f"{path}: {tensor.name} is {shape}, the bundle says {tensor.shape}; build the engine again")


def load_engines(
    stack: contextlib.ExitStack,
    *,
    trt: Any,
    folder: Path,
    manifest: Manifest,
    library: Library,
    names: Sequence[str],
    gpu: Gpu,
    cuda_graph: bool,
) -> list[Engine]:
    """Engines by graph name, in order; the stack closes them."""
    engine_set = manifest.engines[library]
    messages = Messages(trt)
    runtime = make_runtime(trt, messages, engine_set.options)
    engines: list[Engine] = []
    for name in names:
        file = folder / engine_set.engines[name].file
        engine = Engine(
            trt=trt,
            runtime=runtime,
            messages=messages,
            path=file,
            spec=manifest.graphs[name].spec(name),
            options=engine_set.options,
            runtime_cache=file.with_suffix(f".{gpu.capability}.cache"),
            cuda_graph=cuda_graph,
        )
        stack.callback(engine.close)
        engines.append(engine)
    return engines
