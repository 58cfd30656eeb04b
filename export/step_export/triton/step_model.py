"""The `step` model of a repository: videos in, people out, on Triton's Python backend (torch-free).

What it does is in `step_runtime.service`, which has to be installed in the Python that Triton runs; the repository has
three lines that name it, and the bundle.

Source: https://github.com/triton-inference-server/python_backend
"""

from step.bundles.manifest import Manifest
from step.bundles.service_spec import SERVICE_INPUTS, ServiceSettings, service_outputs
from step_export.triton.model_config import ConfigTensor, ModelConfig

STEP = "step"
BUNDLE = "bundle"
"""The bundle's folder, beside model.py."""

MODEL_FILE = "model.py"
MODEL_TEXT = '''"""The model `step`, written by step-export; step-trt has to be installed in Triton's Python."""

from step_runtime.service.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

REQUESTS_A_CALL = 16
"""Most requests that Triton hands over together; their clips share calls of the model."""


def step_config(manifest: Manifest, *, clips_a_call: int, instances: int) -> ModelConfig:
    """Returns the configuration.

    Args:
        manifest: of the bundle.
        clips_a_call: most clips of one call of the model.
        instances: on each device.
    """
    inputs = tuple(
        ConfigTensor(tensor.name, tensor.dtype, tensor.dims, optional=tensor.optional, ragged=-1 in tensor.dims)
        for tensor in SERVICE_INPUTS
    )
    outputs = tuple(
        ConfigTensor(tensor.name, tensor.dtype, tensor.dims)
        for tensor in service_outputs(manifest.config, manifest.options)
    )
    return ModelConfig(
        name=STEP,
        backend="python",
        file=MODEL_FILE,
        max_batch=REQUESTS_A_CALL,
        inputs=inputs,
        outputs=outputs,
        kind="KIND_AUTO",
        instances=instances,
        parameters=ServiceSettings(bundle=BUNDLE, clips_a_call=clips_a_call).parameters,
    )
