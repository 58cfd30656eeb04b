"""What a client gets: people as lines of JSON, and what the model found as tensors."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from step.bundles.graph_spec import RESULTS, Arrays
from step.bundles.service_spec import PEOPLE, PROBLEMS, TIMES_S, ServiceTensor
from step.errors import StepError
from step_runtime.backends.base import Array
from step_runtime.clips.key_frame import KeyFrame

_DTYPES = {"bytes": np.dtype(np.object_)}


@dataclass
class Answer:
    """What was found for one request.

    Attributes:
        score_threshold: people's scores are above it.
        key_frames: in order of time.
        problems: why the video ended early or lacks frames, a line each.
        failure: why there is no answer; None where there is one.
    """

    score_threshold: float
    key_frames: list[KeyFrame] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failure: StepError | None = None

    def tensors(self, outputs: Collection[ServiceTensor]) -> Arrays:
        """Returns outputs by name, each behind a batch dimension of 1; what is not asked for is not computed.

        Args:
            outputs: those that are wanted, as `service_outputs` has them.
        """
        return {output.name: self._tensor(output)[None] for output in outputs}

    def _tensor(self, output: ServiceTensor) -> Array:
        dtype = _DTYPES.get(output.dtype) or np.dtype(output.dtype)
        if output.name == PEOPLE:
            lines = [key_frame.to_json(self.score_threshold) for key_frame in self.key_frames]
            return np.array([line.encode() for line in lines], dtype)
        if output.name == PROBLEMS:
            return np.array([line.encode() for line in self.problems], dtype)
        if output.name == TIMES_S:
            return np.array([float(key_frame.time_s) for key_frame in self.key_frames], dtype)
        place = RESULTS.index(output.name)
        return np.concatenate([key_frame.detections[place] for key_frame in self.key_frames]).astype(dtype, copy=False)
