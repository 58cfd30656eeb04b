"""Clips that graphs are compared on where no video is given (torch-free)."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from step.config import StepConfig


def verification_clips(config: StepConfig, *, batches: tuple[int, int]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Random frames, and moving shapes on a textured ground that look more like video: uint8 [batch, F, H, W, 3]."""
    size, frames = config.image_size_px, config.clip_frames
    state = np.random.RandomState(0)
    yield "noise", state.randint(0, 256, (batches[0], frames, size, size, 3), np.uint8)
    yield "moving shapes", np.stack([_moving_shapes(state, frames, size) for _ in range(batches[1])])


def _moving_shapes(state: np.random.RandomState, frames: int, size: int) -> NDArray[np.uint8]:
    """Four rectangles that drift and grow over a smooth texture, with sensor noise."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(2 * np.pi * (state.uniform(1, 5) * x + state.uniform(1, 5) * y + phase)) for phase in (0, 0.3, 0.6)]
    ground = 110 + 50 * np.stack(waves, axis=-1)
    clip = np.repeat(ground[None], frames, axis=0)
    for _ in range(4):
        center, speed = state.uniform(0.2, 0.8, 2), state.uniform(-0.01, 0.01, 2)
        half, color = state.uniform(0.05, 0.2, 2), state.uniform(0, 255, 3)
        for frame in range(frames):
            low = np.clip((center + speed * frame - half) * size, 0, size).astype(int)
            high = np.clip((center + speed * frame + half) * size, 0, size).astype(int)
            clip[frame, low[1] : high[1], low[0] : high[0]] = color
    return (clip + state.normal(0, 4, clip.shape)).clip(0, 255).astype(np.uint8)
