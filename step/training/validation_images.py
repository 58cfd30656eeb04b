"""A few validation key frames with what was detected, for TensorBoard."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from step.data.ava_dataset import AvaDataset
from step.evaluation.box_table import BoxTable

_IMAGES, _HEIGHT_PX = 4, 240
_LEAST_SCORE, _MOST_BOXES = 0.3, 8
_TRUE_RGB, _FOUND_RGB = (0, 200, 90), (255, 170, 30)


def sample_images(dataset: AvaDataset, results: BoxTable, names: Mapping[int, str]) -> NDArray[np.uint8]:
    """Shows evenly spread key frames beside each other: the ground truth green, detections orange.

    Args:
        dataset: with the resizing to the model's input as its transform.
        results: detections.
        names: of their classes.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, _IMAGES).astype(int)).tolist()
    return np.concatenate([_image(dataset, index, results, names) for index in chosen], axis=1)


def _image(dataset: AvaDataset, index: int, results: BoxTable, names: Mapping[int, str]) -> NDArray[np.uint8]:
    sample = dataset[index]
    frames = sample["frames"].as_subclass(Tensor)
    # [3, H, W] -> [H, W, 3]; the key frame begins the clip's second half
    frame = frames[len(frames) // 2].permute(1, 2, 0).numpy()
    canvas = np.ascontiguousarray(cv2.resize(frame, (_HEIGHT_PX, _HEIGHT_PX)))
    scale = _HEIGHT_PX / frame.shape[0]
    for box in sample["boxes"].as_subclass(Tensor).tolist():
        _rectangle(canvas, np.array(box) * scale, _TRUE_RGB)
    video = results.videos.index(sample["video"]) if sample["video"] in results.videos else -1
    mine = (results.video == video) & (results.second == sample["second"]) & (results.last >= _LEAST_SCORE)
    rows = np.flatnonzero(mine)
    for row in rows[np.argsort(-results.last[rows])][:_MOST_BOXES]:
        box = results.boxes_xyxy[row] * _HEIGHT_PX
        _rectangle(canvas, box, _FOUND_RGB)
        text = f"{names[int(results.label[row])]} {results.last[row]:.2f}"
        place = (int(box[0]), max(int(box[1]) - 2, 8))
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.32, _FOUND_RGB, 1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def _rectangle(canvas: NDArray[np.uint8], box: NDArray[np.float64], colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = (round(float(corner)) for corner in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1, cv2.LINE_AA)
