"""The class that Triton's Python backend looks for in a model.py: its requests to ours, our answers to its responses.

`triton_python_backend_utils` exists in the process that Triton starts only.

Source: https://github.com/triton-inference-server/python_backend#usage
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from step.bundles.manifest import read_bundle
from step.bundles.service_spec import ServiceSettings, ServiceTensor, service_outputs
from step.errors import StepError
from step_runtime.backends.select import BackendName
from step_runtime.detector import Detector
from step_runtime.service.answer import Answer
from step_runtime.service.request import ServiceRequest, read_request
from step_runtime.service.service import DetectionService


class TritonPythonModel:
    """Triton makes one for each instance, and calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the bundle on the instance's device, and runs it once.

        Args:
            args: where the model lies, what its config.pbtxt says, and which device the instance has.

        Raises:
            StepError: a parameter or bundle that nothing can be done with; the model is not ready then.
        """
        import triton_python_backend_utils

        self._pb = triton_python_backend_utils
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        settings = ServiceSettings.of(parameters)
        bundle = Path(args["model_repository"], args["model_version"], settings.bundle)
        manifest = read_bundle(bundle)
        outputs = service_outputs(manifest.config, manifest.options)
        self._outputs: dict[str, ServiceTensor] = {output.name: output for output in outputs}
        on_gpu = args["model_instance_kind"] == "GPU"
        detector = Detector.open(
            bundle,
            cast(BackendName, settings.backend),
            device=f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu",
            threads=settings.threads,
            skipped=lambda name, reason: self._say(f"{name} skipped: {reason}"),
        )
        self._service = DetectionService(
            detector, clips_a_call=settings.clips_a_call, max_key_frames=settings.max_key_frames
        )
        self._service.warm_up()
        if on_gpu:
            self._service.warm_up(clips=settings.clips_a_call)
        backend = detector.backend
        self._say(f"{args['model_instance_name']} runs {bundle} with {backend.name} on {backend.device}")
        self._metrics = _Metrics(self._pb, args["model_instance_name"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers the requests that Triton put together, each with tensors or an error of its own."""
        responses: list[Any] = [None] * len(requests)
        asked: dict[int, ServiceRequest] = {}
        for index, request in enumerate(requests):
            try:
                asked[index] = read_request({tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
            except StepError as error:
                responses[index] = self._error(error)
        try:
            answers = self._service.answer(list(asked.values()))
        except StepError as error:
            return [response or self._error(error) for response in responses]
        for index, answer in zip(asked, answers, strict=True):
            responses[index] = self._response(answer, requests[index].requested_output_names())
        self._metrics.update(self._service)
        return responses

    def finalize(self) -> None:
        """Frees the model."""
        self._service.close()

    def _response(self, answer: Answer, names: Sequence[str]) -> Any:
        if answer.failure is not None:
            return self._error(answer.failure)
        tensors = answer.tensors([self._outputs[name] for name in names])
        return self._pb.InferenceResponse([self._pb.Tensor(name, values) for name, values in tensors.items()])

    def _error(self, error: StepError) -> Any:
        return self._pb.InferenceResponse(error=self._pb.TritonError(str(error), self._pb.TritonError.INVALID_ARG))

    def _say(self, line: str) -> None:
        self._pb.Logger.log_info(line)


class _Metrics:
    """Counts calls of the model and their clips at Triton's /metrics, where it has one."""

    def __init__(self, pb: Any, instance: str) -> None:
        self._last = (0, 0)
        self._families: list[Any] = []  # kept as long as their counters
        self._counters: list[Any] = []
        names = {"step_model_calls": "Calls of the model", "step_model_clips": "Clips in the calls of the model"}
        try:
            for name, description in names.items():
                family = pb.MetricFamily(name=name, description=description, kind=pb.MetricFamily.COUNTER)
                self._families.append(family)
                self._counters.append(family.Metric(labels={"instance": instance}))
        except pb.TritonModelException as error:  # the server was started without metrics
            pb.Logger.log_info(f"no metrics of the model: {error}")

    def update(self, service: DetectionService) -> None:
        """Adds what was counted since the last time."""
        now = (service.calls, service.clips)
        for counter, count, before in zip(self._counters, now, self._last, strict=False):
            counter.increment(count - before)
        self._last = now
