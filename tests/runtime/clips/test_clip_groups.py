"""Several clips a call give what one clip a call gives."""

import numpy as np
import pytest
from step_runtime import Detector

from step import StepError


@pytest.mark.parametrize("clips_a_call", [2, 3, 50])
def test_key_frames_are_the_same(make_video, clips_a_call):
    video = make_video(frames=50)
    with Detector.open("toy", "onnxruntime", threads=1) as detector:
        single = list(detector.run(video, every_s=0.4))
        grouped = list(detector.run(video, every_s=0.4, clips_a_call=clips_a_call))
    assert len(single) == len(grouped) == 5
    for one, other in zip(single, grouped, strict=True):
        assert (one.time_s, one.frame) == (other.time_s, other.frame)
        count = int(one.detections.counts[0])
        assert count == int(other.detections.counts[0])
        np.testing.assert_array_equal(one.detections.labels[0, :count], other.detections.labels[0, :count])
        np.testing.assert_allclose(one.detections.scores, other.detections.scores, atol=1e-5)
        np.testing.assert_allclose(one.detections.boxes, other.detections.boxes, atol=1e-4)
        assert other.detections.boxes.flags.c_contiguous
    assert not np.shares_memory(grouped[0].detections.boxes, grouped[1].detections.boxes)


def test_what_is_refused(make_video):
    with Detector.open("toy", "onnxruntime", loop="steps", threads=1) as detector:
        with pytest.raises(StepError, match="`clips_a_call` is 0"):
            detector.run(make_video(frames=2), clips_a_call=0)
        with pytest.raises(StepError, match="with `reuse_backbone`"):
            detector.run(make_video(frames=2), clips_a_call=2, reuse_backbone=True)
