"""OpenVINO on a CPU.

Source: https://docs.openvino.ai/2026/api/ie_python_api/_autosummary/openvino.html (Core, CompiledModel, InferRequest).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from step.bundles.graph_spec import BACKBONE, CONTEXT, DETECT, FEATURES, FUSED, INPUT_TUBES_PX, RESULTS
from step.bundles.manifest import Manifest
from step.bundles.onnx_files import load_onnx
from step.bundles.step_loop import each_step, first_tubes, graphs_that_run, pass_on, run_steps
from step.detections import Detections
from step.errors import ArgumentError, StepError
from step.turns import Turns
from step_runtime.backends.base import Array, Features, Finished, Loop
from step_runtime.tracing.tracer import SILENT, Tracer


def compile_options(threads: int | None) -> dict[str, str | int]:
    """For `Core.compile_model`.

    Whatever precision the graph has is what it is computed in, or better: never bfloat16 behind one's back.

    Args:
        threads: CPU threads; None lets the library choose.
    """
    options: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return options if threads is None else options | {"INFERENCE_NUM_THREADS": threads}


class OpenVinoBackend:
    """A bundle's fused graph, or its step-loop graphs; see `Backend` for the attributes.

    OpenVINO reads no functions of an ONNX file, so they are inlined first.

    Args:
        folder: the bundle.
        manifest: what `read_bundle` returned for it.
        loop: which graphs.
        num_steps: progressive steps to run; fewer than exported only in the step loop.
        device: "auto" or "cpu".
        threads: CPU threads; None lets the library choose.
        tracer: records uploads, graphs and downloads.

    Raises:
        StepError: another device, the library is not there, or it cannot load a graph.
    """

    name = "openvino"
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
    ) -> None:
        if device not in ("auto", "cpu"):
            raise ArgumentError(f"`backend` openvino runs on the CPU, not on {device}; give `device` cpu")
        try:
            import onnx
            import onnx.inliner
            import openvino
        except ModuleNotFoundError as error:
            raise StepError(f"{error.name} is not installed; pip install 'step-trt[openvino]'") from error
        self.config = manifest.config
        self.precision = manifest.precision
        self.min_batch = manifest.batch or 1
        self.max_batch = manifest.batch
        self.loop = loop
        self._tracer = tracer
        self._turns = Turns()
        self._num_steps = num_steps
        core, options = openvino.Core(), compile_options(threads)
        names = graphs_that_run(loop, num_steps)
        self._requests = {}
        self.threads: int | None = None
        for name in names:
            path = folder / manifest.graphs[name].file
            try:
                inlined = onnx.inliner.inline_local_functions(load_onnx(path))
                model = core.read_model(inlined.SerializeToString())
                compiled = core.compile_model(model, "CPU", options)
                self._requests[name] = compiled.create_infer_request()
                self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
            except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
                reason = next(reversed(str(error).strip().splitlines()), type(error).__name__)
                raise StepError(f"{path}: OpenVINO {openvino.__version__} cannot load it: {reason}") from error
        self.device = f"CPU, OpenVINO {openvino.__version__.partition('-')[0]}"

    def submit(self, frames: NDArray[np.uint8]) -> Finished:
        """See `Backend.submit`."""
        values: dict[str, Array] = {"frames": frames}
        with self._turns.taken():
            if self.loop == "fused":
                pass_on(values, self._run(FUSED, values))
            else:
                pass_on(values, self._run(BACKBONE, values))
                self._run_steps(values, len(frames))
            return self._finished(values)

    def detect_every_step(self, frames: NDArray[np.uint8]) -> list[Detections[Array]]:
        """See `GivesEveryStep.detect_every_step`."""
        values: dict[str, Array] = {"frames": frames}
        with self._turns.taken():
            pass_on(values, self._run(BACKBONE, values))
            values[INPUT_TUBES_PX] = first_tubes(self.config, batch=len(frames))
            found: list[Detections[Array]] = []
            for _ in each_step(lambda name: self._run(name, values), values, num_steps=self._num_steps):
                pass_on(values, self._run(DETECT, values))
                found.append(self._finished(values).detections)
            return found

    def extract(self, frames: NDArray[np.uint8]) -> Features:
        """See `TakesFeatures.extract`."""
        values: dict[str, Array] = {"frames": frames}
        with self._turns.taken():
            pass_on(values, self._run(BACKBONE, values))
            with self._tracer.span("download"):
                context = values.get(CONTEXT)
                return Features(values[FEATURES].copy(), None if context is None else context.copy())

    def submit_features(self, clip: Features) -> Finished:
        """See `TakesFeatures.submit_features`."""
        values = clip.inputs
        with self._turns.taken():
            self._run_steps(values, len(clip.features))
            return self._finished(values)

    def close(self) -> None:
        """See `Backend.close`."""
        self._turns.close(self._requests.clear)

    def _finished(self, values: dict[str, Array]) -> Finished:
        with self._tracer.span("download"):
            return Finished(Detections(*(values[name].copy() for name in RESULTS)))

    def _run_steps(self, values: dict[str, Array], batch: int) -> None:
        """The loop after the backbone."""
        values[INPUT_TUBES_PX] = first_tubes(self.config, batch=batch)
        run_steps(lambda name: self._run(name, values), values, num_steps=self._num_steps)

    def _run(self, name: str, values: dict[str, Array]) -> dict[str, Array]:
        """Runs one graph; its outputs are the library's until its next run."""
        request = self._requests[name]
        inputs = {port.get_any_name(): values[port.get_any_name()] for port in request.model_inputs}
        with self._tracer.span(name):
            results = request.infer(inputs, share_inputs=True, share_outputs=True)
        return {port.get_any_name(): np.asarray(array) for port, array in results.items()}
