"""Every variant of RoI align once at the released network's sizes, for a profiler: `python kernel_launches.py`.

Without PyTorch, whose own kernels a profiler would have to pass.
"""

import itertools
from collections.abc import Iterator

import gpu_kernels
import host_kernels
import numpy as np
from step_plugins import roi_align

_BATCH, _FRAMES, _CHANNELS, _CELLS, _TUBES, _POOL_SIZE = 1, 9, 832, 25, 34, 7


def cases() -> Iterator[tuple[str, float]]:
    """Yields each variant's name, in the order in which `main` launches them, and the traffic model's bytes."""
    for half, channels_last, tactic in _variants():
        model = roi_align.traffic_bytes(
            batch=_BATCH,
            tubes=_TUBES,
            frames=_FRAMES,
            channels=_CHANNELS,
            height=_CELLS,
            width=_CELLS,
            pool_size=_POOL_SIZE,
            half=half,
        )
        layout = "channels last" if channels_last else "linear"
        yield f"align {'fp16' if half else 'fp32'} T{_FRAMES}, {layout}, tactic {tactic}", model["kernel"]


def _variants() -> Iterator[tuple[bool, bool, int]]:
    return itertools.product((True, False), (True, False), roi_align.TACTICS)


def main() -> None:
    """Launches each variant once."""
    state = np.random.RandomState(0)
    low = state.uniform(0, 250, (_BATCH, _TUBES, _FRAMES, 2))
    tubes_px = np.concatenate((low, low + 130), -1).astype(np.float32)
    features = state.standard_normal((_BATCH, _FRAMES, _CHANNELS, _CELLS, _CELLS)).astype(np.float32)
    for half, channels_last, tactic in _variants():
        host_kernels.tube_roi_align(
            features.astype(np.float16) if half else features,
            tubes_px,
            pool_size=_POOL_SIZE,
            channels_last=channels_last,
            tactic=tactic,
            entry_point=gpu_kernels.entry_point,
        )


if __name__ == "__main__":
    main()
