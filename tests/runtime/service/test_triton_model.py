"""The class that Triton's Python backend calls, with a stand-in for the module that Triton's process has."""

import json
import shutil
import sys
import types
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from helpers import ROOT
from step_runtime import Detector
from step_runtime.service.triton_model import TritonPythonModel

from step.bundles.graph_spec import RESULTS
from step.checkpoints.toy_model import BUNDLE
from step.errors import StepError


class Tensor:
    def __init__(self, name, values):
        self._name, self._values = name, values

    def name(self):
        return self._name

    def as_numpy(self):
        return self._values


@dataclass
class Request:
    tensors: dict
    wanted: tuple = ("people",)

    def inputs(self):
        return [Tensor(name, values) for name, values in self.tensors.items()]

    def requested_output_names(self):
        return self.wanted


class TritonModelError(Exception):
    pass


class TritonError(Exception):
    INVALID_ARG = 3

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


@dataclass
class Response:
    output_tensors: list = field(default_factory=list)
    error: TritonError | None = None

    def numpy(self):
        return {tensor.name(): tensor.as_numpy() for tensor in self.output_tensors}


@dataclass
class Family:
    COUNTER: ClassVar = 0
    counters: ClassVar = {}
    name: str
    description: str
    kind: int

    def Metric(self, labels):  # noqa: N802 - as Triton calls it
        counter = Counter(labels)
        Family.counters[self.name] = counter
        return counter


class Counter:
    def __init__(self, labels):
        self.labels, self.value = labels, 0

    def increment(self, by):
        self.value += by


@dataclass
class NoFamily(Family):
    def __post_init__(self):
        raise TritonModelError("metrics are off")


@pytest.fixture
def said(monkeypatch):
    """The stand-in; what it was told to log."""
    lines = []
    Family.counters = {}
    module = types.ModuleType("triton_python_backend_utils")
    module.Tensor, module.InferenceResponse, module.TritonError = Tensor, Response, TritonError
    module.MetricFamily, module.TritonModelException = Family, TritonModelError
    module.Logger = types.SimpleNamespace(log_info=lines.append)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return lines


@pytest.fixture
def arguments(tmp_path):
    """What Triton says to an instance on a CPU."""
    shutil.copytree(BUNDLE, tmp_path / "step/1/bundle")

    def make(**parameters):
        values = {"bundle": "bundle", "backend": "onnxruntime", "clips_a_call": "2"} | parameters
        stated = {name: {"string_value": value} for name, value in values.items()}
        return {
            "model_config": json.dumps({"parameters": stated}),
            "model_repository": str(tmp_path / "step"),
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_instance_name": "step_0_0",
        }

    return make


def frames_request(frames, wanted=("people",)):
    return Request({"frames": frames[None], "fps": np.array([[12.0]])}, wanted)


def test_requests_are_answered_together(said, arguments):
    model = TritonPythonModel()
    model.initialize(arguments())
    assert any("step_0_0 runs" in line and "onnxruntime" in line for line in said)
    frames = np.random.RandomState(0).randint(0, 256, (12, 40, 60, 3), np.uint8)
    wanted = ("people", "times_s", *RESULTS)
    responses = model.execute(
        [
            frames_request(frames, wanted),
            Request({"video": np.array([[b""]], object)}),
            Request({"video": np.array([[b"no video"]], object)}),
            frames_request(frames[::-1], wanted),
        ]
    )
    assert "`video` is empty" in str(responses[1].error)
    assert "cannot open" in str(responses[2].error)
    assert responses[1].error.code == TritonError.INVALID_ARG
    assert {name: counter.value for name, counter in Family.counters.items()} == {
        "step_model_calls": 1,
        "step_model_clips": 2,
    }
    for response in (responses[0], responses[3]):
        assert response.error is None
        assert list(response.numpy()) == list(wanted)
        assert json.loads(response.numpy()["people"][0, 0])["width_px"] == 60
    model.execute([frames_request(frames)])
    assert Family.counters["step_model_calls"].value == 2
    model.finalize()
    with pytest.raises(RuntimeError):
        model.execute([frames_request(frames)])


def test_without_metrics(said, arguments, monkeypatch):
    monkeypatch.setattr(sys.modules["triton_python_backend_utils"], "MetricFamily", NoFamily)
    model = TritonPythonModel()
    model.initialize(arguments(EXECUTION_ENV_PATH="/opt/python"))  # one of Triton's own parameters
    assert "no metrics of the model: metrics are off" in said
    assert model.execute([frames_request(np.zeros((2, 4, 4, 3), np.uint8))])[0].error is None
    model.finalize()


def test_a_model_that_fails_answers_each(said, arguments, monkeypatch):
    model = TritonPythonModel()
    model.initialize(arguments())

    def fail(_detector, _frames):
        raise StepError("out of memory")

    monkeypatch.setattr(Detector, "detect", fail)
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    responses = model.execute([Request({}), frames_request(frames), frames_request(frames)])
    assert [str(response.error) for response in responses[1:]] == ["out of memory"] * 2
    assert "neither is there" in str(responses[0].error)
    model.finalize()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"clips_a_call": "0"}, "parameter clips_a_call"),
        ({"speed": "9"}, "parameter speed"),
        ({"bundle": "elsewhere"}, "elsewhere: no such bundle"),
        ({"backend": "fast"}, "`backend` is 'fast'"),
    ],
)
def test_parameters_that_cannot_be(parameters, expected, said, arguments):
    with pytest.raises(StepError, match=expected):
        TritonPythonModel().initialize(arguments(**parameters))


def test_the_repository_names_the_class(tmp_path):
    """Without importing the exporter, which the runtime may not."""
    text = (ROOT / "export/step_export/triton/step_model.py").read_text()
    assert f"from {TritonPythonModel.__module__} import {TritonPythonModel.__name__}" in text
