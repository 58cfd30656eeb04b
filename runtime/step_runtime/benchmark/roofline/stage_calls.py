"""A stage as a call that can be timed, in each library."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from step.bundles.graph_spec import Arrays
from step.bundles.onnx_files import one_line, onnxruntime_failures
from step.errors import StepError

if TYPE_CHECKING:
    import onnx

Call = Callable[[], Arrays]


def load_calls(
    backend: str, models: "Mapping[str, onnx.ModelProto]", inputs: Mapping[str, Arrays], threads: int
) -> dict[str, Call]:
    """A call for each stage, on inputs that stay the same.

    Args:
        backend: "onnxruntime" or "openvino".
        models: of the stages.
        inputs: of each stage.
        threads: CPU threads.

    Raises:
        StepError: the library cannot load a stage.
    """
    make = onnxruntime_call if backend == "onnxruntime" else openvino_call
    return {stage: make(stage, model, inputs[stage], threads) for stage, model in models.items()}


def onnxruntime_call(stage: str, model: "onnx.ModelProto", inputs: Arrays, threads: int | None) -> Call:
    """A call of a stage in ONNX Runtime; its results by name."""
    from step_runtime.backends.onnxruntime import open_session, session_options

    session = open_session(model.SerializeToString(), options=session_options(threads), device="cpu")
    names = [output.name for output in session.get_outputs()]
    failures = onnxruntime_failures()

    def call() -> Arrays:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except failures as error:
            raise StepError(f"ONNX Runtime failed in {stage}: {one_line(error)}") from error

    return call


def openvino_call(stage: str, model: "onnx.ModelProto", inputs: Arrays, threads: int) -> Call:
    """A call of a stage in OpenVINO; its results by name."""
    import onnx.inliner

    try:
        import openvino
    except ModuleNotFoundError as error:
        raise StepError(f"{error.name} is not installed; pip install 'step-trt[openvino]'") from error
    from step_runtime.backends.openvino import compile_options

    core = openvino.Core()
    try:
        read = core.read_model(onnx.inliner.inline_local_functions(model).SerializeToString())
        request = core.compile_model(read, "CPU", compile_options(threads)).create_infer_request()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise StepError(f"OpenVINO {openvino.__version__} cannot load {stage}: {reason}") from error

    def call() -> Arrays:
        results = request.infer(inputs, share_inputs=True, share_outputs=True)
        return {port.get_any_name(): np.asarray(array) for port, array in results.items()}

    return call
