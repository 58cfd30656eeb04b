"""Key frames without a model, for tests of what is done with them."""

from fractions import Fraction

import numpy as np
from step_runtime import KeyFrame

from step import Detections, StepConfig

CONFIG = StepConfig(image_size_px=100)


def key_frame(rows, *, time_s=Fraction(2), size=(200, 100), tube_step_px=0.0, config=CONFIG) -> KeyFrame:
    """(label, score, x1, y1, x2, y2 in [0, 1]) each; tube i is the box of row i, moving right."""
    count = len(rows)
    boxes = np.array([row[2:] for row in rows] + [(0, 0, 0, 0)], np.float32).reshape(1, -1, 4)
    tubes_px = np.repeat(boxes[:, :, None] * 100, 9, axis=2)
    tubes_px[..., ::2] += tube_step_px * (np.arange(9) - 4)[:, None]
    detections = Detections(
        boxes=boxes,
        scores=np.array([[row[1] for row in rows] + [0.0]], np.float32),
        labels=np.array([[row[0] for row in rows] + [0]]),
        tube_indices=np.array([[*range(count), -1]]),
        counts=np.array([count]),
        tubes_px=tubes_px,
    )
    return KeyFrame(
        video="clip",
        time_s=time_s,
        scheduled_s=time_s,
        frame=50,
        width_px=size[0],
        height_px=size[1],
        detections=detections,
        config=config,
        lag_s=0.0,
    )
