"""ONNX Runtime on a CPU or an NVIDIA GPU.

Source: https://onnxruntime.ai/docs/api/python/api_summary.html (IOBinding, OrtValue).
"""

import contextlib
import io
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from step.bundles.graph_spec import (
    BACKBONE,
    CONTEXT,
    DETECT,
    FEATURES,
    FUSED,
    INPUT_TUBES_PX,
    RESULTS,
    GraphSpec,
    Precision,
)
from step.bundles.manifest import Manifest
from step.bundles.onnx_files import one_line, onnxruntime_failures
from step.bundles.step_loop import each_step, first_tubes, graphs_that_run, pass_on, run_steps
from step.detections import Detections
from step.errors import ArgumentError, StepError
from step.parity.tolerances import held_to
from step.turns import MOST_BATCHES, Turns
from step_runtime.backends.base import Array, Features, Finished, Loop
from step_runtime.backends.gpus import cuda_driver_is_present
from step_runtime.backends.threads import count_threads
from step_runtime.tracing.tracer import SILENT, Tracer

_QUIET, _SILENT = 3, 4  # severities: errors only; nothing that can be recovered from


class OnnxRuntimeBackend:
    """A bundle's fused graph, or its step-loop graphs; see `Backend` for the attributes.

    Args:
        folder: the bundle.
        manifest: what `read_bundle` returned for it.
        loop: which graphs.
        num_steps: progressive steps to run; fewer than exported only in the step loop.
        device: "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None lets the library choose.
        tracer: records uploads, graphs and downloads.
        tf32: on a GPU, whether float32 products may be computed with TF32's ten bits, as PyTorch's convolutions are.

    Raises:
        StepError: the device is not there, or a graph cannot be loaded.
    """

    name = "onnxruntime"
    depth = 1

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        *,
        loop: Loop,
        num_steps: int,
        device: str,
        threads: int | None,
        tracer: Tracer = SILENT,
        tf32: bool = True,
    ) -> None:
        self.config = manifest.config
        self.min_batch = manifest.batch or 1
        self.max_batch = manifest.batch
        self.loop = loop
        self._tracer = tracer
        self._manifest = manifest
        self._num_steps = num_steps
        names = graphs_that_run(loop, num_steps)
        self._memory, self._memory_id = _memory_of(device)
        self._tf32 = tf32 and self._memory == "cuda"
        options = session_options(threads)
        self._sessions: dict[str, ort.InferenceSession] = {}
        self.threads = threads if self._memory == "cpu" else None
        for name in names:
            before = count_threads()
            path = folder / manifest.graphs[name].file
            self._sessions[name] = open_session(path, options=options, device=device, tf32=tf32)
            if self._memory == "cpu" and self.threads is None and before is not None:
                # The library says 0, for its own choice; its session began a thread for each but the caller's.
                self.threads = 1 + max(0, (count_threads() or 0) - before)
        self._specs = {name: manifest.graphs[name].spec(name) for name in names}
        self.device = next(iter(self._sessions.values())).get_providers()[0]
        self._buffers: OrderedDict[int, dict[str, ort.OrtValue]] = OrderedDict()  # by clips; the last used come last
        self._arena_batch: dict[str, int] = {}  # by graph: clips of its last run
        self._turns = Turns()

    @property
    def precision(self) -> Precision:
        """See `Backend`."""
        return held_to(self._manifest.precision, tf32=self._tf32)

    def submit(self, frames: NDArray[np.uint8]) -> Finished:
        """See `Backend.submit`."""
        with self._turns.taken():
            return self._submit(frames)

    def _submit(self, frames: NDArray[np.uint8]) -> Finished:
        batch = len(frames)
        values = self._buffers_of(batch)
        self._upload(values, {"frames": frames})
        if self.loop == "fused":
            pass_on(values, self._run(FUSED, values, batch))
        else:
            pass_on(values, self._run(BACKBONE, values, batch))
            self._run_steps(values, batch)
        return self._finished(values)

    def detect_every_step(self, frames: NDArray[np.uint8]) -> list[Detections[Array]]:
        """See `GivesEveryStep.detect_every_step`."""
        batch = len(frames)
        with self._turns.taken():
            values = self._buffers_of(batch)
            self._upload(values, {"frames": frames})
            pass_on(values, self._run(BACKBONE, values, batch))
            self._bind_first_tubes(values, batch)
            found: list[Detections[Array]] = []
            for _ in each_step(lambda name: self._run(name, values, batch), values, num_steps=self._num_steps):
                pass_on(values, self._run(DETECT, values, batch))
                found.append(self._finished(values).detections)
            return found

    def extract(self, frames: NDArray[np.uint8]) -> Features:
        """See `TakesFeatures.extract`."""
        with self._turns.taken():
            return self._extract(frames)

    def _extract(self, frames: NDArray[np.uint8]) -> Features:
        batch = len(frames)
        values = self._buffers_of(batch)
        self._upload(values, {"frames": frames})
        pass_on(values, self._run(BACKBONE, values, batch))
        with self._tracer.span("download"):
            context = values.get(CONTEXT)
            return Features(values[FEATURES].numpy().copy(), None if context is None else context.numpy().copy())

    def submit_features(self, clip: Features) -> Finished:
        """See `TakesFeatures.submit_features`."""
        with self._turns.taken():
            return self._submit_features(clip)

    def _submit_features(self, clip: Features) -> Finished:
        batch = len(clip.features)
        values = self._buffers_of(batch)
        self._upload(values, clip.inputs)
        self._run_steps(values, batch)
        return self._finished(values)

    def close(self) -> None:
        """See `Backend.close`."""
        self._turns.close(self._free)

    def _free(self) -> None:
        self._buffers.clear()
        self._sessions.clear()

    def _buffers_of(self, batch: int) -> dict[str, ort.OrtValue]:
        """The buffers of a number of clips; those of the number that was not used for longest make room."""
        if batch not in self._buffers:
            while len(self._buffers) >= MOST_BATCHES:
                self._buffers.popitem(last=False)
            self._buffers[batch] = {}
        self._buffers.move_to_end(batch)
        return self._buffers[batch]

    def _finished(self, values: dict[str, ort.OrtValue]) -> Finished:
        with self._tracer.span("download"):
            rows = [values[name].numpy() for name in RESULTS]
            # On the CPU these are views of buffers that the next call writes.
            return Finished(Detections(*(row.copy() for row in rows)))

    def _run_steps(self, values: dict[str, ort.OrtValue], batch: int) -> None:
        """The loop after the backbone; what one graph writes is bound to the next as it lies in memory."""
        self._bind_first_tubes(values, batch)
        run_steps(lambda name: self._run(name, values, batch), values, num_steps=self._num_steps)

    def _bind_first_tubes(self, values: dict[str, ort.OrtValue], batch: int) -> None:
        if "anchors" not in values:
            tubes_px = first_tubes(self.config, batch=batch)
            values["anchors"] = ort.OrtValue.ortvalue_from_numpy(tubes_px, self._memory, self._memory_id)
        values[INPUT_TUBES_PX] = values["anchors"]

    def _upload(self, values: dict[str, ort.OrtValue], arrays: Mapping[str, Array]) -> None:
        with self._tracer.span("upload"):
            for name, array in arrays.items():
                values[name] = ort.OrtValue.ortvalue_from_numpy(array, self._memory, self._memory_id)

    def _run(self, name: str, values: dict[str, ort.OrtValue], batch: int) -> dict[str, ort.OrtValue]:
        """Runs one graph on bound memory; its outputs are allocated once per batch size."""
        session, spec = self._sessions[name], self._specs[name]
        binding = session.io_binding()
        for tensor in spec.inputs:
            binding.bind_ortvalue_input(tensor.name, values[tensor.name])
        outputs = self._outputs(spec, values, batch)
        for tensor_name, value in outputs.items():
            binding.bind_ortvalue_output(tensor_name, value)
        try:
            with self._tracer.span(name):
                session.run_with_iobinding(binding, self._run_options(name, batch))
        except onnxruntime_failures() as error:
            raise StepError(f"ONNX Runtime failed in {name}: {one_line(error)}") from error
        return outputs

    def _run_options(self, name: str, batch: int) -> ort.RunOptions | None:
        """Options of a graph's run with other shapes than its last: what the library kept for those is given back.

        Source: https://onnxruntime.ai/docs/get-started/with-c.html ("memory.enable_memory_arena_shrinkage").
        """
        if self._arena_batch.get(name, batch) == batch:
            self._arena_batch[name] = batch
            return None
        self._arena_batch[name] = batch
        options = ort.RunOptions()
        place = f"gpu:{self._memory_id}" if self._memory == "cuda" else "cpu:0"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", place)
        return options

    def _outputs(self, spec: GraphSpec, values: dict[str, ort.OrtValue], batch: int) -> dict[str, ort.OrtValue]:
        outputs: dict[str, ort.OrtValue] = {}
        for tensor in spec.outputs:
            key = f"{spec.name}/{tensor.name}"  # steps differ in the length of tubes of the same name
            if key not in values:
                shape = list(tensor.concrete_shape(batch))
                values[key] = ort.OrtValue.ortvalue_from_shape_and_type(
                    shape, np.dtype(tensor.dtype).type, self._memory, self._memory_id
                )
            outputs[tensor.name] = values[key]
        return outputs


def session_options(threads: int | None) -> ort.SessionOptions:
    """Options for sessions of one model.

    Args:
        threads: CPU threads; None lets the library choose.
    """
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    # Threads that have nothing to do any more would otherwise go on spinning for a while, and take the processor from
    # the next graph of a step loop (measured on the toy model: 187 ms a clip, 77 ms so) and from decoding.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(
    model: Path | bytes, *, options: ort.SessionOptions, device: str, tf32: bool = True
) -> ort.InferenceSession:
    """Loads a graph.

    Args:
        model: an ONNX file, or its content.
        options: of the library; its logging is turned off here.
        device: "cpu", "cuda" or "cuda:N".
        tf32: see `OnnxRuntimeBackend`.

    Raises:
        StepError: the device is not there, or the graph cannot be loaded.
    """
    options.log_severity_level = _QUIET
    memory, memory_id = _memory_of(device)
    providers: list[Any] = ["CPUExecutionProvider"]
    if memory == "cuda":
        if not cuda_driver_is_present():
            raise StepError("this machine has no NVIDIA driver, which CUDA needs; run on the CPU")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses
            ort.preload_dlls()  # finds CUDA and cuDNN inside their wheels, where the loader does not look
        ort.set_default_logger_severity(_SILENT)  # what could not be loaded is reported below, in one line
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": memory_id, "use_tf32": int(tf32)}))
    try:
        session = ort.InferenceSession(model, options, providers=providers)
    except onnxruntime_failures() as error:
        reason = one_line(error)
        label = model if isinstance(model, Path) else "a changed graph"
        raise StepError(f"{label}: ONNX Runtime {ort.__version__} cannot load it: {reason}") from error
    # The library falls back to the CPU without raising, so it is asked what it took.
    taken = session.get_providers()[0]
    if memory == "cuda" and taken != "CUDAExecutionProvider":
        raise ArgumentError(
            f"ONNX Runtime could not use CUDA and would run on {taken}; "
            "check the driver and CUDA libraries, or give `device` cpu"
        )
    return session


def _memory_of(device: str) -> tuple[str, int]:
    """Name and number of a device's memory, as the library calls them."""
    return ("cuda", int(device.partition(":")[2] or 0)) if "cuda" in device else ("cpu", 0)
