"""Requests read from a client's tensors."""

from fractions import Fraction

import numpy as np
import pytest
from step_runtime.service.request import read_request

from step.errors import ArgumentError

FRAMES = np.zeros((1, 4, 6, 8, 3), np.uint8)
FPS = np.array([[29.97]])
VIDEO = np.array([[b"bytes"]], object)


def test_a_video():
    request = read_request({"video": VIDEO})
    assert (request.content, request.every_s, request.score_threshold) == (b"bytes", 1, 0.4)


def test_frames():
    tensors = {"frames": FRAMES, "fps": FPS, "every_s": np.array([[1 / 3]]), "score_threshold": np.array([[0.0]])}
    request = read_request(tensors)
    assert request.content.fps == Fraction(30000, 1001)
    assert request.content.frames.shape == (4, 6, 8, 3)
    assert (request.every_s, request.score_threshold) == (Fraction(1, 3), 0)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "neither is there"),
        ({"video": VIDEO, "frames": FRAMES, "fps": FPS}, "both are there"),
        ({"video": np.array([[b""]], object)}, "`video` is empty"),
        ({"video": np.array([[b"a"], [b"b"]], object)}, "`video` has a batch of 2"),
        ({"video": np.zeros((1, 1), np.uint8)}, "`video` is of uint8; it must be bytes"),
        ({"video": np.array([[b"a", b"b"]], object)}, r"`video` is of shape \[2\] behind the batch; it must be \[1\]"),
        ({"video": VIDEO, "fps": FPS}, "leave it out"),
        ({"frames": FRAMES}, "`frames` without `fps`"),
        ({"frames": FRAMES[:, :0], "fps": FPS}, r"`frames` is of shape \[0, 6, 8, 3\], which is empty"),
        ({"frames": FRAMES[:, :, :0], "fps": FPS}, "which is empty"),
        ({"frames": FRAMES.astype(np.float32), "fps": FPS}, "`frames` is of float32; it must be uint8"),
        ({"frames": FRAMES[..., :2], "fps": FPS}, "`frames` is of shape"),
        ({"frames": FRAMES[:, 0], "fps": FPS}, "`frames` is of shape"),
        ({"frames": FRAMES, "fps": np.array([[0.0]])}, "`fps` is 0; it must be from 1 to 1000"),
        ({"frames": FRAMES, "fps": np.array([[1e-9]])}, "`fps` is 1e-09; it must be from 1"),
        ({"frames": FRAMES, "fps": np.array([[np.nan]])}, "`fps` is nan"),
        ({"frames": FRAMES, "fps": np.zeros((1, 2))}, "`fps` is of shape"),
        ({"video": VIDEO, "every_s": np.array([[-1.0]])}, "`every_s` is -1"),
        ({"video": VIDEO, "every_s": np.array([[np.inf]])}, "`every_s` is inf"),
        ({"video": VIDEO, "score_threshold": np.array([[1.0]])}, "`score_threshold` is 1;"),
        ({"video": VIDEO, "model": VIDEO}, "`model` is no input; there are video, frames"),
    ],
)
def test_what_cannot_be(tensors, said):
    with pytest.raises(ArgumentError, match=said):
        read_request(tensors)
