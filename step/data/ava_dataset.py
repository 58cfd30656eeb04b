"""Loads AVA's annotated key frames as a PyTorch data set.

Shape legend: F input frames (36), M people in the key frame, R proposals, K classes, H x W stored image.

Source: SPEC.md, "Clip and preprocessing", "Classes", "Training (detection)".
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from step.classes import CHALLENGE_CLASS_IDS
from step.data.people import group_people
from step.data.stored_clips import StoredClips
from step.data.torchvision import tv_tensors
from step.errors import StepError
from step.evaluation.ava_csv import read_boxes
from step.evaluation.box_table import BoxTable

_PROPOSAL_SCORE = 0.8
_NEIGHBOUR_OFFSETS = (-1, 1)


class Sample(TypedDict):
    """Holds one key frame; torchvision's v2 transforms take it as it is.

    Attributes:
        frames: Video, uint8 [F, 3, H, W] RGB.
        boxes: BoundingBoxes, float32 [M, 4] XYXY in pixels of the images.
        labels: float32 [M, K], 1 for each action of the person.
        neighbour_boxes: BoundingBoxes, float32 [2 M, 4]: the same person a second before and after; the person's own
            box where that is not annotated.
        neighbour_known: bool [M, 2].
        proposals: BoundingBoxes, float32 [R, 4].
        video, second: which key frame.
    """

    frames: tv_tensors.Video
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    neighbour_boxes: tv_tensors.BoundingBoxes
    neighbour_known: Tensor
    proposals: tv_tensors.BoundingBoxes
    video: str
    second: int


@dataclass(frozen=True)
class _People:
    """Holds a key frame's people: boxes [M, 4] in shares of the image, labels [M, K], ids [M] (NaN: not known)."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.float32]
    ids: NDArray[np.float64]


class AvaDataset(Dataset[Sample]):
    """Loads key frames with at least one person and one class; it holds no state, so workers may share it.

    Args:
        truth: csv of ground truth, see `step-data prepare`.
        frames: root of the extracted frames; None to decode the videos themselves.
        videos: folder of the videos, without which there have to be frames.
        class_ids: AVA ids of the model's columns; the 60 of the challenge, or all 80.
        proposals: csv of person boxes with scores, as AVA's results have them; None for none.
        transform: is given each sample and returns what is to be used.

    Raises:
        StepError: a bad csv, no row of the classes, neither frames nor videos, or proposals of another data set.
    """

    def __init__(
        self,
        *,
        truth: Path,
        frames: Path | None = None,
        videos: Path | None = None,
        class_ids: tuple[int, ...] = CHALLENGE_CLASS_IDS,
        proposals: Path | None = None,
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self._clips = StoredClips(frames=frames, videos=videos)
        self._transform = transform
        table = read_boxes(truth, last="person")
        self._people = _people(table, class_ids)
        if not self._people:
            raise StepError(f"{truth}: has no box of the {len(class_ids)} classes; check the csv and the classes")
        self.key_frames = sorted(self._people)
        self._proposals = {} if proposals is None else _proposals(proposals)
        if proposals is not None and not set(self._proposals) & set(self._people):
            raise StepError(f"{proposals}: no proposal lies in a key frame of {truth}; check that they belong together")

    def __len__(self) -> int:
        return len(self.key_frames)

    def __getitem__(self, index: int) -> Sample:
        """Loads one sample; see `Sample`."""
        video, second = self.key_frames[index]
        images = self._clips.read(video, second)
        people = self._people[video, second]
        height, width = images.shape[1:3]

        def boxes(shares: NDArray[np.float32]) -> tv_tensors.BoundingBoxes:
            pixels = torch.from_numpy(shares * np.array([width, height, width, height], np.float32))
            return tv_tensors.BoundingBoxes(pixels, format="XYXY", canvas_size=(height, width))

        neighbours, known = self._neighbours(video, second, people)
        sample = Sample(
            # [F, H, W, 3] -> [F, 3, H, W]
            frames=tv_tensors.Video(torch.from_numpy(images).permute(0, 3, 1, 2)),
            boxes=boxes(people.boxes),
            labels=torch.from_numpy(people.labels),
            neighbour_boxes=boxes(neighbours.reshape(-1, 4)),
            neighbour_known=torch.from_numpy(known),
            proposals=boxes(self._proposals.get((video, second), np.zeros((0, 4), np.float32))),
            video=video,
            second=second,
        )
        return sample if self._transform is None else self._transform(sample)

    def _neighbours(self, video: str, second: int, people: _People) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Returns boxes [M, 2, 4] of the second before and after, and whether each is annotated [M, 2]."""
        boxes = np.repeat(people.boxes[:, None], len(_NEIGHBOUR_OFFSETS), axis=1)
        known = np.zeros(boxes.shape[:2], np.bool_)
        for column, offset in enumerate(_NEIGHBOUR_OFFSETS):
            other = self._people.get((video, second + offset))
            if other is None:
                continue
            rows, columns = np.nonzero(people.ids[:, None] == other.ids[None])
            boxes[rows, column], known[rows, column] = other.boxes[columns], True
        return boxes, known


def _people(table: BoxTable, class_ids: tuple[int, ...]) -> dict[tuple[str, int], _People]:
    """Groups rows by video and second; see `group_people` for what makes rows one person."""
    column = {label: index for index, label in enumerate(class_ids)}
    table = table.take(np.isin(table.label, class_ids))
    fractional = np.flatnonzero(table.second != np.floor(table.second))
    if len(fractional):
        row = int(fractional[0])
        raise StepError(f"{table.where(row)}: the second is {table.second[row]}; key frames lie on whole seconds")
    found: dict[tuple[str, int], _People] = {}
    for frame in group_people(table):
        labels = np.zeros((len(frame.people), len(class_ids)), np.float32)
        for number, person in enumerate(frame.people):
            labels[number, [column[int(label)] for label in table.label[person.rows]]] = 1
        ids = [frame.sole_id(person) for person in frame.people]
        found[table.videos[frame.video], int(frame.second)] = _People(
            boxes=np.stack([person.box_xyxy for person in frame.people]).astype(np.float32),
            labels=labels,
            ids=np.array([np.nan if number is None else number for number in ids], np.float64),
        )
    return found


def _proposals(path: Path) -> dict[tuple[str, int], NDArray[np.float32]]:
    """Reads boxes of at least the score that the release takes, by video and second; each once."""
    table = read_boxes(path, last="score")
    table = table.take(table.last >= _PROPOSAL_SCORE)
    found: dict[tuple[str, int], list[NDArray[np.float64]]] = {}
    for row in range(len(table)):
        key = (table.videos[table.video[row]], int(table.second[row]))
        found.setdefault(key, []).append(table.boxes_xyxy[row])
    return {key: np.unique(np.stack(boxes), axis=0).astype(np.float32) for key, boxes in found.items()}
