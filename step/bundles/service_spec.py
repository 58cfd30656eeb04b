"""Names, types and shapes of what the `step` model of a Triton repository takes and gives, in one place (torch-free).

`step_export.triton` writes its config.pbtxt from here, `step_runtime.service` reads requests and fills responses with
the same names. What the model finds has the names, types and shapes of the fused graph, a key frame for each clip.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, ValidationError

from step.bundles.graph_spec import FUSED, RESULTS, DType, ExportOptions, graph_specs
from step.bundles.records import Record
from step.config import StepConfig
from step.errors import StepError

ServiceDType = DType | Literal["float64", "bytes"]
"""Types of tensors; "bytes" is Triton's TYPE_STRING, whose elements are byte strings of any content."""

ANY = -1
"""A dimension that each request has its own of, as Triton writes it."""

VIDEO, FRAMES, FPS, EVERY_S, SCORE_THRESHOLD = "video", "frames", "fps", "every_s", "score_threshold"
"""Inputs: an encoded video or frames with their rate, and how key frames and people are chosen."""

PEOPLE, PROBLEMS, TIMES_S = "people", "problems", "times_s"
"""Outputs besides the fused graph's: a line of JSON for each key frame, what went wrong midway, key frames' times."""

DEFAULT_CLIPS_A_CALL = 8
DEFAULT_MAX_KEY_FRAMES = 3600
"""An hour with a key frame a second."""
_MOST_CLIPS_A_CALL = 1024


@dataclass(frozen=True)
class ServiceTensor:
    """One input or output of a request, without the batch dimension that Triton puts before it.

    Attributes:
        name: what clients call it.
        dtype: of its elements.
        dims: sizes; `ANY` where each request has its own.
        optional: an input that a request may leave out.
    """

    name: str
    dtype: ServiceDType
    dims: tuple[int, ...]
    optional: bool = False


SERVICE_INPUTS = (
    ServiceTensor(VIDEO, "bytes", (1,), optional=True),
    ServiceTensor(FRAMES, "uint8", (ANY, ANY, ANY, 3), optional=True),
    ServiceTensor(FPS, "float64", (1,), optional=True),
    ServiceTensor(EVERY_S, "float64", (1,), optional=True),
    ServiceTensor(SCORE_THRESHOLD, "float64", (1,), optional=True),
)


def service_outputs(config: StepConfig, options: ExportOptions) -> tuple[ServiceTensor, ...]:
    """Returns what the `step` model of a bundle gives; the first dimension counts key frames, or problems."""
    of_graph = {tensor.name: tensor for tensor in graph_specs(config, options)[FUSED].outputs}
    found = (
        ServiceTensor(name, of_graph[name].dtype, (ANY, *(int(dim) for dim in of_graph[name].shape[1:])))
        for name in RESULTS
    )
    return (
        ServiceTensor(PEOPLE, "bytes", (ANY,)),
        ServiceTensor(PROBLEMS, "bytes", (ANY,)),
        ServiceTensor(TIMES_S, "float64", (ANY,)),
        *found,
    )


class ServiceSettings(Record):
    """How the `step` model runs: the parameters in its config.pbtxt, which are read when Triton loads it.

    Attributes:
        bundle: where the bundle lies, from the folder of the model's version on, or from the root.
        backend: what runs it; see `step-run --backend`.
        clips_a_call: most clips of one call of the model, of however many requests.
        max_key_frames: most of one request; nobody keeps the model from the others for longer.
        threads: CPU threads; None lets the library choose.
    """

    bundle: str = Field(min_length=1)
    backend: str = "auto"
    clips_a_call: int = Field(default=DEFAULT_CLIPS_A_CALL, ge=1, le=_MOST_CLIPS_A_CALL)
    max_key_frames: int = Field(default=DEFAULT_MAX_KEY_FRAMES, ge=1)
    threads: int | None = Field(default=None, ge=1)

    @property
    def parameters(self) -> dict[str, str]:
        """What config.pbtxt says of them; those that are None are left out."""
        return {name: str(value) for name, value in self.model_dump(exclude_none=True).items()}

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Self:
        """Reads what config.pbtxt says; names in capitals, such as EXECUTION_ENV_PATH, are Triton's own.

        Raises:
            StepError: a parameter that is not known, is missing or has another value than it may have.
        """
        try:
            return cls.model_validate({name: value for name, value in parameters.items() if not name.isupper()})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise StepError(f"config.pbtxt of the model step: parameter {where}: {first['msg']}") from error
