"""Parity of exported graphs with PyTorch: every graph on its own, the step loop chained, and the fused graph.

ONNX Runtime on a CPU computes half operators in float32 and drops the casts between them
(https://github.com/microsoft/onnxruntime/issues/11831). An fp16 graph is therefore compared in a form that has every
half result's rounding written into it; sums inside an operator are float32 there, as they are on a GPU's tensor cores.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from step import StepDetector, StepError
from step.bundles.graph_edits import make_float, round_halves
from step.bundles.graph_spec import Arrays, ExportOptions, Precision, graph_specs
from step.bundles.manifest import ParityRow, Thresholds
from step.bundles.onnx_files import load_onnx, one_line, onnxruntime_failures
from step.models.torch_runner import TorchRunner
from step.parity.compare import ComparedModel, compare
from step.parity.synthetic_clips import verification_clips

_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def verify_graphs(
    files: dict[str, Path],
    detector: StepDetector,
    options: ExportOptions,
    *,
    thresholds: Thresholds,
) -> Iterator[ParityRow]:
    """Compares every given graph with the detector in float32, clip by clip; see `step.parity.compare`.

    Args:
        files: ONNX file of each exported graph.
        detector: the float32 detector that the checkpoint held.
        options: those of the export.
        thresholds: baked into the graphs.

    Yields:
        One row per graph, clip and tensor. A value that is not finite never passes.

    Raises:
        StepError: ONNX Runtime cannot load a graph.
    """
    specs = {name: spec for name, spec in graph_specs(detector.config, options).items() if name in files}
    reference = TorchRunner(detector, specs, options=options, thresholds=thresholds)
    # A dynamic batch axis is tried at two sizes.
    batches = (1, 2) if options.batch is None else (options.batch, options.batch)
    yield from compare(
        reference,
        ExportedGraphs(files, options.precision),
        ComparedModel(detector.config, specs, thresholds),
        verification_clips(detector.config, batches=batches),
    )


class ExportedGraphs:
    """See `GraphRunner`; exported files in ONNX Runtime on a CPU, an fp16 graph with its rounding written into it.

    Args:
        files: ONNX file of each graph, by its name.
        precision: of the export.
    """

    name = "onnxruntime"

    def __init__(self, files: dict[str, Path], precision: Precision) -> None:
        self.precision = precision
        self._sessions = {name: _session(path, precision) for name, path in files.items()}

    def run(self, graph: str, inputs: Arrays, extra_outputs: Sequence[str] = ()) -> Arrays:
        """See `GraphRunner.run`."""
        assert not extra_outputs
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        cast = {wanted.name: inputs[wanted.name].astype(_DTYPES[wanted.type]) for wanted in session.get_inputs()}
        return dict(zip(names, session.run(names, cast), strict=True))

    def close(self) -> None:
        """See `GraphRunner.close`."""
        self._sessions.clear()


def _session(path: Path, precision: Precision) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        if precision == "fp32":
            return session
        del session  # the file loads; what is compared is its arithmetic
        model = load_onnx(path)
        round_halves(model)
        make_float(model)
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime_failures() as error:
        raise StepError(f"ONNX Runtime {ort.__version__} cannot load {path.name}: {one_line(error)}") from error
