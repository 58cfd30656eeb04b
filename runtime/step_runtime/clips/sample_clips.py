"""A few clips of real videos, to compare backends on."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig
from step.errors import StepError
from step_runtime.clips.clip_buffer import ClipBuffer
from step_runtime.clips.key_frame import Clip
from step_runtime.sources.base import Source
from step_runtime.sources.open import find_sources, open_source, source_names

_FRAMES_FPS = Fraction(30)
_UNKNOWN_DURATION_S = Fraction(10)


def sample_clips(
    location: Path, config: StepConfig, *, max_clips: int, batch: int
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Clips of a video file or of every video in a folder, spread over the videos and over each video's length.

    Args:
        location: file or folder, as `step-run` takes it.
        config: clip length and frame size.
        max_clips: how many at most, over all videos.
        batch: how often each clip is repeated, for graphs with a fixed batch.

    Yields:
        "name at 1.25 s" and uint8 [batch, F, H, W, 3].

    Raises:
        StepError: no videos there, or nothing in one can be decoded.
    """
    locations = find_sources(location, frames_fps=_FRAMES_FPS)
    names = source_names(locations)
    found = 0
    for index, (entry, name) in enumerate(zip(locations, names, strict=True)):
        count = max_clips // len(locations) + (index < max_clips % len(locations))
        if not count:
            break
        for clip in _clips_of(open_source(entry, frames_fps=_FRAMES_FPS, name=name), config, count):
            found += 1
            yield f"{name} at {float(clip.time_s):.2f} s", np.repeat(clip.frames[None], batch, axis=0)
    if not found:
        raise StepError(f"{location}: too short to take a clip from; give a longer video")


def _clips_of(source: Source, config: StepConfig, count: int) -> Iterator[Clip]:
    """Clips at the middles of equal parts of a video: with key frames at 0, 1, 2, ... half parts, every other one."""
    half_part_s = (source.duration_s or _UNKNOWN_DURATION_S) / (2 * count)
    buffer = ClipBuffer(config=config, every_s=half_part_s, interval_s=source.interval_s, slack_s=source.slack_s)
    clips = itertools.chain(
        (clip for frame in source.frames() for clip in buffer.add(frame)),
        buffer.finish(),
    )
    return itertools.islice(clips, 1, 2 * count, 2)
