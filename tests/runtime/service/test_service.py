"""Requests answered together by one model, which counts its calls."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import TINY
from step_runtime import Detector
from step_runtime.backends.base import Finished
from step_runtime.service.request import FrameArray, ServiceRequest
from step_runtime.service.service import DetectionService

from step.bundles.graph_spec import RESULTS, ExportOptions
from step.bundles.service_spec import service_outputs
from step.detections import Detections
from step.errors import StepError

ROWS, TUBES = 3, 34
OUTPUTS = service_outputs(TINY, ExportOptions(precision="fp32", num_steps=3, batch=None, max_detections=ROWS))


class Brightness:
    """A backend whose one detection has the brightness of the clip's key frame for its score."""

    name, loop, config, min_batch, depth, threads = "brightness", "fused", TINY, 1, 1, 1
    precision, device = "fp32", "cpu"

    def __init__(self, max_batch=None, failure=None):
        self.max_batch, self.failure = max_batch, failure
        self.sizes = []

    def submit(self, frames):
        self.sizes.append(len(frames))
        if self.failure is not None:
            raise self.failure
        count = len(frames)
        scores = np.zeros((count, ROWS), np.float32)
        scores[:, 0] = frames[:, 17].mean(axis=(1, 2, 3)) / 255
        indices = np.where(np.arange(ROWS) == 0, 0, -1) * np.ones((count, 1), np.int64)
        return Finished(
            Detections(
                boxes=np.full((count, ROWS, 4), (0.1, 0.2, 0.5, 0.6), np.float32),
                scores=scores,
                labels=np.full((count, ROWS), 12) * (indices == 0),
                tube_indices=indices,
                counts=np.ones(count, np.int64),
                tubes_px=np.ones((count, TUBES, 9, 4), np.float32),
            )
        )

    def close(self):
        pass


def request(brightness, *, seconds=1, every_s=Fraction(1), fps=6):
    frames = np.full((seconds * fps, 8, 8, 3), brightness, np.uint8)
    return ServiceRequest(FrameArray(frames, Fraction(fps)), every_s, 0.1)


def serve(backend, **options):
    return DetectionService(Detector(backend), **options)


def scores_of(answer):
    return [float(key_frame.detections.scores[0, 0]) for key_frame in answer.key_frames]


def test_clips_of_several_requests_share_a_call():
    backend = Brightness()
    with serve(backend, clips_a_call=4) as service:
        answers = service.answer([request(51), request(102, seconds=3), request(153), request(204)])
        assert sorted(backend.sizes) == [2, 4]
        assert (service.calls, service.clips) == (2, 6)
    found = [scores_of(answer) for answer in answers]
    assert [len(scores) for scores in found] == [1, 3, 1, 1]
    for scores, brightness in zip(found, (0.2, 0.4, 0.6, 0.8), strict=True):
        assert scores == pytest.approx([brightness] * len(scores))
    assert [float(frame.time_s) for frame in answers[1].key_frames] == [0, 1, 2]


def test_a_request_that_cannot_be_read_fails_alone():
    with serve(Brightness()) as service:
        good, bad, other = service.answer(
            [request(51), ServiceRequest(b"no video", Fraction(1), 0.4), request(102, seconds=2)]
        )
        assert "cannot open" in str(bad.failure)
        assert not bad.key_frames
        assert [(len(answer.key_frames), answer.failure) for answer in (good, other)] == [(1, None), (2, None)]
        assert len(service.answer([request(51)])[0].key_frames) == 1  # and the next is answered


def test_no_more_clips_than_the_model_takes():
    backend = Brightness(max_batch=2)
    with serve(backend, clips_a_call=8) as service:
        service.answer([request(51, seconds=5)])
        assert backend.sizes == [2, 2, 1]


def test_a_failing_model_ends_the_reading():
    with serve(Brightness(failure=StepError("out of memory")), clips_a_call=1) as service:
        for _ in range(2):
            with pytest.raises(StepError, match="out of memory"):
                service.answer([request(51, seconds=30), request(51, seconds=30)])


def test_too_many_key_frames_of_one_request():
    with serve(Brightness(), clips_a_call=2, max_key_frames=3) as service:
        much, enough = service.answer([request(51, seconds=4), request(102, seconds=3)])
    assert "frames: more than 3 key frames" in str(much.failure)
    assert (len(enough.key_frames), enough.failure) == (3, None)


def test_no_requests():
    with serve(Brightness()) as service:
        assert service.answer([]) == []


def test_more_requests_than_threads():
    backend = Brightness()
    with serve(backend, clips_a_call=16, readers=1) as service:
        answers = service.answer([request(51)] * 16)
        assert [len(answer.key_frames) for answer in answers] == [1] * 16
        assert backend.sizes == [16]


def test_warming_up_is_not_counted():
    backend = Brightness(max_batch=2)
    with serve(backend) as service:
        service.warm_up()
        service.warm_up(clips=8)
        assert backend.sizes == [1, 2]
        assert service.calls == 0


def test_tensors_are_what_the_config_says():
    with serve(Brightness()) as service:
        (answer,) = service.answer([request(51, seconds=2)])
    answer.problems.append("video: broke")
    tensors = answer.tensors(OUTPUTS)
    assert list(tensors) == [output.name for output in OUTPUTS]
    for output in OUTPUTS:
        values = tensors[output.name]
        assert values.dtype == (np.object_ if output.dtype == "bytes" else output.dtype), output
        assert values.shape == (1, 1 if output.name == "problems" else 2, *output.dims[1:]), output
    assert tensors["problems"][0, 0] == b"video: broke"
    assert list(tensors["times_s"][0]) == [0, 1]
    assert [key_frame.to_json(0.1).encode() for key_frame in answer.key_frames] == list(tensors["people"][0])
    for place, name in enumerate(RESULTS):
        for row, key_frame in enumerate(answer.key_frames):
            np.testing.assert_array_equal(tensors[name][0, row], key_frame.detections[place][0])


def test_what_is_not_asked_for_is_not_there():
    with serve(Brightness()) as service:
        (answer,) = service.answer([request(51)])
    wanted = [output for output in OUTPUTS if output.name == "people"]
    assert list(answer.tensors(wanted)) == ["people"]
