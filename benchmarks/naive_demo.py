"""What the published demo does, for comparing: key frame by key frame, each clip decoded anew, PyTorch, NMS in Python.

    python benchmarks/naive_demo.py video.mp4 --checkpoint model.pth --every 1 --out results-naive

Decoding starts at the last key picture before the clip, so that a video with few of them is decoded many times over.
The detections are those of step-run on a video of constant frame rate.
"""

import functools
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from end_to_end_runs import RunFigures
from numpy.typing import NDArray
from step_runtime.sources.video import video_name

from step import StepDetector, load_checkpoint
from step.checkpoints.toy_model import find_checkpoint
from step.cli import OneLineCommand
from step.clips import clip_frame_indices
from step.errors import StepError
from step.evaluation.ava_rows import detection_rows, write_rows
from step.files.atomic import atomic_path
from step.models.detector import middle_boxes
from step.ops.box_coding import make_boxes_valid
from step.video_stream import VideoStream

_SCORE_THRESHOLD, _NMS_IOU, _MOST = 0.01, 0.4, 300
Box = tuple[float, float, float, float]
Detection = tuple[float, int, Box]


@click.command(cls=OneLineCommand, context_settings={"show_default": True})
@click.argument("video")
@click.option("--checkpoint", required=True, help="A .pth, or toy.")
@click.option("--every", type=float, default=1.0, help="Seconds between key frames.")
@click.option("--threads", type=click.IntRange(min=1), help="Of PyTorch.  [default: its choice]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for detections.csv.")
def main(video: str, checkpoint: str, every: float, threads: int | None, out: Path) -> None:
    """Detects people and actions in VIDEO and writes detections.csv."""
    if not every > 0:
        raise StepError(f"--every is {every}; it must be above 0")
    every_s = Fraction(every).limit_denominator(1001)
    figures = run_naive(every_s, out, video=video, checkpoint=checkpoint, threads=threads)
    rate = figures.key_frames / figures.wall_s
    print(f"{figures.key_frames} key frames in {figures.wall_s:.1f} s ({rate:.2f} a second)")


def run_naive(
    every_s: Fraction | None, folder: Path, *, video: str, checkpoint: str, threads: int | None
) -> RunFigures:
    """See the module; the model is kept from call to call.

    Args:
        every_s: seconds between key frames; None for every frame.
        folder: detections.csv goes there.
        video: file of constant frame rate.
        checkpoint: a .pth, or `toy`.
        threads: of PyTorch; None for its choice.

    Raises:
        StepError: the checkpoint or the video cannot be used.
    """
    detector = _detector(checkpoint, threads)
    start_s = time.monotonic()
    with VideoStream(video) as stream:
        rate, num_frames = stream.rate, stream.stated_frames
    if not num_frames:
        raise StepError(f"{video}: the container does not say how many frames it has; give an mp4")
    keys = list(_key_frames(every_s, rate, num_frames))
    worst_lag_s = 0.0
    with atomic_path(folder / "detections.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        for scheduled_s, key in keys:
            frames = read_clip(video, key, rate=rate, num_frames=num_frames, detector=detector)
            read_s = time.monotonic()
            for score, label, box in detect(detector, frames):
                write_rows(file, detection_rows(video_name(video), float(scheduled_s), [box], [label], [score]))
            worst_lag_s = max(worst_lag_s, time.monotonic() - read_s)
    return RunFigures(len(keys), time.monotonic() - start_s, worst_lag_s)


def _key_frames(every_s: Fraction | None, rate: Fraction, num_frames: int) -> Iterator[tuple[Fraction, int]]:
    """Scheduled time and frame of each key frame."""
    interval_s = 1 / rate if every_s is None or every_s * rate < 1 else every_s
    number = 0
    while (scheduled_s := number * interval_s) < num_frames / rate:
        yield scheduled_s, int(scheduled_s * rate)
        number += 1


def read_clip(video: str, key: int, *, rate: Fraction, num_frames: int, detector: StepDetector) -> NDArray[np.uint8]:
    """Decodes what a key frame's clip shows: uint8 [F, S, S, 3] RGB.

    Raises:
        StepError: a frame cannot be decoded.
    """
    size_px = detector.config.image_size_px
    indices = clip_frame_indices(key, source_fps=rate, num_frames=num_frames, clip_frames=detector.config.clip_frames)
    wanted = set(indices)
    pictures: dict[int, NDArray[np.uint8]] = {}
    with VideoStream(video) as stream:
        for frame in stream.decode(start_s=max((indices[0] - Fraction(1, 2)) / rate, Fraction(0))):
            index = round(frame.time_s * rate)
            if index in wanted:
                resized = cv2.resize(frame.rgb(), (size_px, size_px), interpolation=cv2.INTER_LINEAR)
                pictures[index] = np.asarray(resized, np.uint8)
            if index >= indices[-1]:
                break
    if wanted - set(pictures):
        raise StepError(
            f"{video}: frame {min(wanted - set(pictures))} cannot be decoded, or its frame rate is not constant"
        )
    return np.stack([pictures[index] for index in indices])


def detect(detector: StepDetector, frames: NDArray[np.uint8]) -> list[Detection]:
    """Score, class and box in [0, 1] of a clip's detections, best first."""
    with torch.inference_mode():
        output = detector(torch.from_numpy(frames[None]))[-1]
        tubes_px = make_boxes_valid(output.boxes_px, detector.config.image_size_px)
    scores = output.scores[0].tolist()
    boxes_px: list[Box] = [tuple(box) for box in middle_boxes(tubes_px)[0].tolist()]
    found: list[Detection] = []
    for column, label in enumerate(detector.config.class_ids):
        by_score = [(row[column], box) for row, box in zip(scores, boxes_px, strict=True)]
        found += [(score, label, box) for score, box in _suppress(by_score)]
    found.sort(key=lambda detection: -detection[0])
    size_px = detector.config.image_size_px
    return [(score, label, tuple(side / size_px for side in box)) for score, label, box in found[:_MOST]]


def _suppress(candidates: list[tuple[float, Box]]) -> list[tuple[float, Box]]:
    """Greedy NMS of one class."""
    kept: list[tuple[float, Box]] = []
    for score, box in sorted(candidates, key=lambda candidate: -candidate[0]):
        if score > _SCORE_THRESHOLD and all(_iou(box, other) < _NMS_IOU for _, other in kept):
            kept.append((score, box))
    return kept


def _iou(one: Box, other: Box) -> float:
    """With the release's "+1" sides."""
    width = max(min(one[2], other[2]) - max(one[0], other[0]) + 1, 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]) + 1, 0)
    inter = width * height
    return inter / (_area(one) + _area(other) - inter)


def _area(box: Box) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


@functools.cache
def _detector(checkpoint: str, threads: int | None) -> StepDetector:
    if threads is not None:
        torch.set_num_threads(threads)
    return load_checkpoint(find_checkpoint(checkpoint))


if __name__ == "__main__":
    main()
