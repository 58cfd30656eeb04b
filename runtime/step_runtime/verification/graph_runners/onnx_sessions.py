"""ONNX Runtime sessions of a bundle's graphs, opened when they are first run."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from step.bundles.graph_spec import Arrays
from step.bundles.onnx_files import one_line, onnxruntime_failures
from step.errors import StepError
from step.turns import Turns
from step_runtime.backends.onnxruntime import open_session

_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32}


class OnnxSessions:
    """What the ONNX Runtime runners share.

    Args:
        load: gives a graph's ONNX file, or the content of a changed one, by the graph's name and extra outputs.
        device: "cpu", "cuda" or "cuda:N".
    """

    def __init__(self, load: Callable[[str, Sequence[str]], Path | bytes], *, device: str) -> None:
        self._load = load
        self._device = device
        self._turns = Turns()
        self._sessions: dict[tuple[str, tuple[str, ...]], ort.InferenceSession] = {}

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str]) -> Arrays:
        """See `GraphRunner.run`."""
        with self._turns.taken():
            return self._run(graph, inputs, extra_outputs)

    def _run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str]) -> Arrays:
        session = self._session(graph, tuple(extra_outputs))
        names = [output.name for output in session.get_outputs()]
        with np.errstate(over="ignore"):  # what half cannot hold becomes inf, which the comparison sees
            cast = {wanted.name: inputs[wanted.name].astype(_DTYPES[wanted.type]) for wanted in session.get_inputs()}
        try:
            return dict(zip(names, session.run(names, cast), strict=True))
        except onnxruntime_failures() as error:
            raise StepError(f"ONNX Runtime failed in {graph}: {one_line(error)}") from error

    def close(self) -> None:
        """Frees the sessions."""
        self._turns.close(self._sessions.clear)

    def _session(self, graph: str, extra_outputs: tuple[str, ...]) -> ort.InferenceSession:
        key = graph, extra_outputs
        if key not in self._sessions:
            if extra_outputs:
                self._sessions.clear()  # a search opens many, each for a short time
            options = ort.SessionOptions()
            # Several graphs are held at once; each keeping its working memory would double what a run takes.
            options.enable_cpu_mem_arena = False
            # Whoever compares numbers wants those of the graph's own precision.
            model = self._load(graph, extra_outputs)
            self._sessions[key] = open_session(model, options=options, device=self._device, tf32=False)
        return self._sessions[key]
