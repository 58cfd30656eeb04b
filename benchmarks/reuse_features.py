"""How far features that are cut from shared windows are from those of a clip that is run by itself, on real video.

Every window of a clip's length, at every offset to the clip, runs through the PyTorch backbone and context branch with
Kinetics weights; so does the whole video at once, where no padding is near. What is compared is one feature frame (a
group of 4 frames) at a time: |a - b| / |b|, Euclidean, over channels and cells.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from step import StepConfig, StepDetector, StepError, initialise_from_kinetics
from step.config import CLIP_FPS, TIME_STRIDE
from step.video_stream import VideoStream

Matrix = NDArray[np.float64]
KINDS = ("features", "context")


@dataclass(frozen=True)
class FeatureError:
    """Relative differences, means over clips and videos.

    Attributes:
        kind: "features" or "context".
        to_long: [9] by position in a window: from the same group of the whole video at once.
        to_clip: [9, 9] by position in the clip and position in the window: from the clip that is run by itself.
    """

    kind: str
    to_long: Matrix
    to_clip: Matrix

    def of_margin(self, margin: int) -> tuple[Matrix, Matrix]:
        """By position in the clip, when the middle positions of the windows are kept: mean and largest."""
        kept = self.to_clip[:, margin : len(self.to_long) - margin]
        return kept.mean(axis=1), kept.max(axis=1)


def measure(videos: list[Path], weights: Path, console: Console) -> list[FeatureError]:
    """Errors over all videos; each must last about 8 s or more.

    Raises:
        StepError: a video or the weights cannot be read, or a video is too short.
    """
    detector = StepDetector.from_config(StepConfig())
    initialise_from_kinetics(detector, weights)
    found: list[dict[str, tuple[Matrix, Matrix]]] = []
    for video in videos:
        frames = grid_frames(video, detector.config.image_size_px)
        found.append(_compare(detector, frames, video, console))
    return [
        FeatureError(
            kind,
            np.mean([video[kind][0] for video in found], axis=0),
            np.mean([video[kind][1] for video in found], axis=0),
        )
        for kind in KINDS
    ]


def grid_frames(video: Path, size_px: int) -> NDArray[np.uint8]:
    """The frames shown at n / 12 s, uint8 [F, size, size, 3], in groups that begin one frame before n = 4, 8, ..."""
    shown: list[NDArray[np.uint8]] = []
    with VideoStream(str(video)) as stream:
        held: NDArray[np.uint8] | None = None
        for frame in stream.decode():
            while held is not None and Fraction(len(shown), CLIP_FPS) + stream.slack_s < frame.time_s:
                shown.append(held)
            held = np.asarray(cv2.resize(frame.rgb(), (size_px, size_px), interpolation=cv2.INTER_LINEAR), np.uint8)
    whole = shown[TIME_STRIDE - 1 :]
    return np.stack(whole[: len(whole) // TIME_STRIDE * TIME_STRIDE])


@torch.inference_mode()
def extract(detector: StepDetector, frames: NDArray[np.uint8]) -> dict[str, Tensor]:
    """features [T, C, H, W] and context [T, 1024] of any number of frames."""
    scaled = torch.from_numpy(frames)[None].float() * (2 / 255) - 1
    volume = detector.backbone(scaled.permute(0, 4, 1, 2, 3))
    assert detector.context is not None
    return {"features": volume[0].transpose(0, 1).contiguous(), "context": detector.context(volume)[0].T.contiguous()}


def _compare(
    detector: StepDetector, frames: NDArray[np.uint8], video: Path, console: Console
) -> dict[str, tuple[Matrix, Matrix]]:
    size = detector.config.feature_frames
    starts = 2 * size - 1  # offsets from -8 to 8 need windows from 0 to 8 groups apart; their span is 17 groups
    groups = len(frames) // TIME_STRIDE
    if groups < starts + size - 1:
        raise StepError(f"{video}: {groups / 3:.1f} s; give one of at least {(starts + size - 1) / 3:.1f} s")
    first = (groups - starts) // 2
    with console.status(f"{video.name}: {groups} groups at once"):
        whole = extract(detector, frames)
    windows = [
        extract(detector, frames[start * TIME_STRIDE : (start + size) * TIME_STRIDE])
        for start in track(range(first, first + size), video.name, console=console)
    ]
    errors = {}
    for kind in KINDS:
        to_long, to_clip = np.zeros((size, size)), np.full((size, size, size), np.nan)
        for one, clip in enumerate(windows):
            for position in range(size):
                group = one + position
                to_long[one, position] = _relative(clip[kind][position], whole[kind][first + group])
                for other in range(max(0, group - size + 1), min(size, group + 1)):
                    in_window = group - other
                    to_clip[one, position, in_window] = _relative(windows[other][kind][in_window], clip[kind][position])
        errors[kind] = (to_long.mean(axis=0), np.nanmean(to_clip, axis=0))
    return errors


def _relative(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


def print_errors(errors: list[FeatureError], console: Console) -> None:
    """Tables: by position in the window, and by margin."""
    size = len(errors[0].to_long)
    for error in errors:
        table = Table(title=f"{error.kind}: relative difference, %, by position in the clip", title_justify="left")
        table.add_column("")
        for position in range(size):
            table.add_column(str(position), justify="right")
        table.add_column("mean", justify="right")
        rows = {"clip alone, to the whole video": error.to_long}
        for margin in range((size + 1) // 2):
            rows[f"windows, margin {margin}, to the clip alone"] = error.of_margin(margin)[0]
        for name, row in rows.items():
            table.add_row(name, *(f"{100 * value:.1f}" for value in row), f"{100 * row.mean():.1f}")
        for margin in range((size + 1) // 2):
            kept = error.to_long[margin : size - margin]
            mean, most = 100 * kept.mean(), 100 * kept.max()
            table.add_row(f"windows, margin {margin}, to the whole video: mean {mean:.1f}, largest {most:.1f}")
        console.print(table)


def draw(errors: list[FeatureError], path: Path) -> None:
    """One picture: above by position in the window, below by margin."""
    from matplotlib.figure import Figure

    size = len(errors[0].to_long)
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, error in zip(figure.subplots(1, 2, sharey=True), errors, strict=True):
        axes.plot(range(size), 100 * error.to_long, "k--", label="clip alone, to the whole video")
        for margin in range((size + 1) // 2):
            axes.plot(range(size), 100 * error.of_margin(margin)[0], "o-", label=f"margin {margin}, to the clip alone")
        axes.set_title(error.kind)
        axes.set_xlabel("position in the clip, groups of 4 frames")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if error.kind == KINDS[0]:
            axes.set_ylabel("relative difference, %")
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def as_dict(errors: list[FeatureError]) -> dict[str, dict[str, object]]:
    """Everything that was measured."""
    return {e.kind: {"to_long": e.to_long.tolist(), "to_clip": e.to_clip.tolist()} for e in errors}
