"""What a client asks for: an encoded video, or frames with their rate, and how key frames and people are chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from step.arguments import check_score_threshold, exact_interval, exact_rate
from step.bundles.service_spec import ANY, EVERY_S, FPS, FRAMES, SCORE_THRESHOLD, SERVICE_INPUTS, VIDEO
from step.errors import ArgumentError
from step_runtime.backends.base import Array
from step_runtime.clips.key_frame import DEFAULT_SCORE_THRESHOLD
from step_runtime.detector import DEFAULT_EVERY_S
from step_runtime.sources.frame_folder import FASTEST_FPS

_SLOWEST_FPS = 1
_DTYPES = {tensor.name: tensor.dtype for tensor in SERVICE_INPUTS}


@dataclass(frozen=True)
class FrameArray:
    """Frames that come decoded.

    Attributes:
        frames: uint8 [N, H, W, 3] RGB.
        fps: how many a second, exact.
    """

    frames: NDArray[np.uint8]
    fps: Fraction


@dataclass(frozen=True)
class ServiceRequest:
    """One client's request.

    Attributes:
        content: the bytes of a video file, or frames.
        every_s: seconds between key frames, exact.
        score_threshold: people's scores are above it.
    """

    content: bytes | FrameArray
    every_s: Fraction
    score_threshold: float


def read_request(tensors: Mapping[str, Array]) -> ServiceRequest:
    """Reads the tensors of a request.

    Args:
        tensors: by name, as `step.bundles.service_spec` has them, each behind a batch dimension of 1.

    Raises:
        ArgumentError: neither a video nor frames, both, an empty one, a batch of several, or a value that nothing can
            be done with; the message names the tensors.
    """
    for name, values in tensors.items():
        _check_tensor(name, values)
    if (VIDEO in tensors) == (FRAMES in tensors):
        given = "both are there" if VIDEO in tensors else "neither is there"
        raise ArgumentError(f"give either `{VIDEO}`, an encoded file, or `{FRAMES}` with `{FPS}`; {given}")
    every_s = exact_interval(EVERY_S, float(tensors[EVERY_S][0, 0])) if EVERY_S in tensors else DEFAULT_EVERY_S
    threshold = float(tensors[SCORE_THRESHOLD][0, 0]) if SCORE_THRESHOLD in tensors else DEFAULT_SCORE_THRESHOLD
    check_score_threshold(threshold)
    content = _read_video(tensors) if VIDEO in tensors else _read_frames(tensors)
    return ServiceRequest(content, every_s, threshold)


def _check_tensor(name: str, values: Array) -> None:
    expected = next((tensor for tensor in SERVICE_INPUTS if tensor.name == name), None)
    if expected is None:
        raise ArgumentError(f"`{name}` is no input; there are {', '.join(_DTYPES)}")
    dtype = "bytes" if values.dtype == np.object_ else values.dtype.name
    if dtype != expected.dtype:
        raise ArgumentError(f"`{name}` is of {dtype}; it must be {expected.dtype}")
    if len(values) != 1:
        raise ArgumentError(f"`{name}` has a batch of {len(values)}; send each video as a request of its own, batch 1")
    dims = values.shape[1:]
    fits = len(dims) == len(expected.dims)
    if not fits or any(want not in (ANY, dim) for dim, want in zip(dims, expected.dims, strict=True)):
        raise ArgumentError(f"`{name}` is of shape {list(dims)} behind the batch; it must be {list(expected.dims)}")


def _read_video(tensors: Mapping[str, Array]) -> bytes:
    if FPS in tensors:
        raise ArgumentError(f"`{FPS}` is of `{FRAMES}`; a `{VIDEO}` says its own rate, leave it out")
    content = tensors[VIDEO][0, 0]
    assert isinstance(content, bytes)
    if not content:
        raise ArgumentError(f"`{VIDEO}` is empty; send the bytes of a video file")
    return content


def _read_frames(tensors: Mapping[str, Array]) -> FrameArray:
    frames = tensors[FRAMES][0]
    if not frames.size:
        raise ArgumentError(f"`{FRAMES}` is of shape {list(frames.shape)}, which is empty; send uint8 [N, H, W, 3]")
    if FPS not in tensors:
        raise ArgumentError(f"`{FRAMES}` without `{FPS}`; say how many there are a second")
    fps = float(tensors[FPS][0, 0])
    if not _SLOWEST_FPS <= fps <= FASTEST_FPS:  # slower ones make hours of a few frames
        raise ArgumentError(f"`{FPS}` is {fps:g}; it must be from {_SLOWEST_FPS} to {FASTEST_FPS}")
    return FrameArray(np.asarray(frames, np.uint8), exact_rate(FPS, fps))
