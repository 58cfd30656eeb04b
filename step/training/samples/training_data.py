"""The clips that a run trains on and is scored on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from step.data.ava_dataset import AvaDataset
from step.errors import StepError
from step.training.config import TrainingConfig
from step.training.samples.augmentation import Augmentation, AugmentationOptions
from step.training.samples.clips import TrainingClips
from step.video.files import read_folder


@dataclass(frozen=True)
class TrainingData:
    """Training clips, validation clips and the csv of the latter."""

    train: TrainingClips
    val: AvaDataset
    truth: Path


def open_data(
    config: TrainingConfig, *, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> TrainingData:
    """The clips of a config's data set.

    Raises:
        StepError: no such folder, no csv of a split or one without a box of the classes.
    """
    folder, size, frames_of_clip = config.data.folder, config.model.image_size_px, config.step_config().clip_frames
    if not folder.is_dir():
        raise StepError(f"data.folder {folder}: no such folder")
    frames, videos = folder / "frames", folder / "videos"
    if not frames.is_dir() and not videos.is_dir():
        raise StepError(f"data.folder {folder}: has neither frames nor videos, which are folders of those names")
    for split in (config.data.train, config.data.val):
        if not (folder / f"{split}.csv").is_file():
            raise StepError(f"data.folder {folder}: has no {split}.csv; write it with step-data prepare")
    ids, plain = config.data.class_ids, Augmentation(image_size_px=size, clip_frames=frames_of_clip, options=None)
    places = (frames, None) if frames.is_dir() else (None, videos)

    def opened(truth: Path, transform: Augmentation | None) -> AvaDataset:
        return AvaDataset(truth=truth, frames=places[0], videos=places[1], class_ids=ids, transform=transform)

    train = opened(folder / f"{config.data.train}.csv", None)
    truth = folder / f"{config.data.val}.csv"
    val = opened(truth, plain)
    for dataset, csv in ((train, config.data.train), (val, config.data.val)):
        _check_videos(dataset, folder / f"{csv}.csv", frames if frames.is_dir() else videos)
    options = AugmentationOptions(**config.augmentation.model_dump())
    augmentation = Augmentation(image_size_px=size, clip_frames=frames_of_clip, options=options)
    clips = TrainingClips(dataset=train, augmentation=augmentation, seed=config.seed)
    if config.data.cache:
        clips.keep_in_memory(progress)
    return TrainingData(clips, val, truth)


def _check_videos(dataset: AvaDataset, csv: Path, folder: Path) -> None:
    """Before hours of training, that there is something of every video."""
    content = read_folder(folder)
    there = {path.stem for path in content.videos} | {path.name for path in content.folders}
    missing = sorted({video for video, _ in dataset.key_frames} - there)
    if missing:
        raise StepError(
            f"{csv}: {len(missing)} of its videos are not in {folder}, the first is {missing[0]}; "
            "see step-data extract and step-data check"
        )
