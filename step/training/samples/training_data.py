"""The clips that a run trains on and is scored on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from step.data.ava_dataset import AvaDataset
from step.data.dataset_folder import DatasetFolder
from step.errors import StepError
from step.training.config import TrainingConfig
from step.training.samples.augmentation import Augmentation, AugmentationOptions
from step.training.samples.clips import TrainingClips
from step.video.files import read_folder


@dataclass(frozen=True)
class TrainingData:
    """Holds training clips, validation clips and the csv of the latter."""

    train: TrainingClips
    val: AvaDataset
    truth: Path


def open_data(
    config: TrainingConfig, *, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> TrainingData:
    """Opens the clips of a config's data set.

    Raises:
        StepError: no such folder, no csv of a split or one without a box of the classes.
    """
    folder, size, frames_of_clip = config.data.folder, config.model.image_size_px, config.step_config().clip_frames
    splits = [DatasetFolder.open(folder, split, called="data.folder") for split in (config.data.train, config.data.val)]
    ids, plain = config.data.class_ids, Augmentation(image_size_px=size, clip_frames=frames_of_clip, options=None)

    def opened(split: DatasetFolder, transform: Augmentation | None) -> AvaDataset:
        videos = split.videos if split.frames is None else None
        dataset = AvaDataset(truth=split.truth, frames=split.frames, videos=videos, class_ids=ids, transform=transform)
        _check_videos(dataset, split.truth, split.frames or split.videos)
        return dataset

    train, val = opened(splits[0], None), opened(splits[1], plain)
    options = AugmentationOptions(**config.augmentation.model_dump())
    augmentation = Augmentation(image_size_px=size, clip_frames=frames_of_clip, options=options)
    clips = TrainingClips(dataset=train, augmentation=augmentation, seed=config.seed)
    if config.data.cache:
        clips.keep_in_memory(progress)
    return TrainingData(clips, val, splits[1].truth)


def _check_videos(dataset: AvaDataset, csv: Path, folder: Path) -> None:
    """Checks, before hours of training, that there is something of every video."""
    content = read_folder(folder)
    there = {path.stem for path in content.videos} | {path.name for path in content.folders}
    missing = sorted({video for video, _ in dataset.key_frames} - there)
    if missing:
        raise StepError(
            f"{csv}: {len(missing)} of its videos are not in {folder}, the first is {missing[0]}; "
            "see step-data extract and step-data check"
        )
