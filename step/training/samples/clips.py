"""Training clips in an order that depends on seed and epoch alone, not on processes or on where a run was resumed."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import Dataset, Sampler

from step.data.ava_dataset import AvaDataset
from step.training.samples.augmentation import Augmentation, AugmentedSample

_LOADING_THREADS = 2


class TrainingClips(Dataset[AugmentedSample]):
    """Augments key frames of a data set; the same sample in the same epoch is augmented the same way.

    Args:
        dataset: without a transform.
        augmentation: of the whole clip.
        seed: of the augmentation, with the epoch and the index.
    """

    def __init__(self, *, dataset: AvaDataset, augmentation: Augmentation, seed: int) -> None:
        self.dataset = dataset
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0
        self._kept: list[AugmentedSample] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def keep_in_memory(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> None:
        """Decodes every clip once, at the model's input size."""
        size_px, frames = self.augmentation.size[0], self.augmentation.clip_frames
        plain = Augmentation(image_size_px=size_px, clip_frames=frames, options=None)
        with ThreadPoolExecutor(_LOADING_THREADS) as pool:
            kept = []
            for sample in pool.map(lambda index: plain(self.dataset[index]), range(len(self.dataset))):
                kept.append(sample)
                progress(len(kept), len(self.dataset))
        self._kept = kept

    def __getitem__(self, index: int) -> AugmentedSample:
        """Returns one augmented sample."""
        sample = self.dataset[index] if self._kept is None else self._kept[index].copy()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{self.seed} {self.epoch} {index}".encode()))
            return self.augmentation(sample)


class EpochBatches(Sampler[list[int]]):
    """Yields the batches of one epoch for one of several processes, which together split those of one process.

    Args:
        count: samples of the data set; an incomplete batch at the end is left out.
        batch: samples of a process and batch.
        rank, world: which process of how many.
        seed, epoch: of the order.
        first: batches that are left out at the beginning, since they were done before.
    """

    def __init__(self, *, count: int, batch: int, rank: int, world: int, seed: int, epoch: int, first: int = 0) -> None:
        self.count, self.batch, self.rank, self.world = count, batch, rank, world
        self.seed, self.epoch, self.first = seed, epoch, first

    def __len__(self) -> int:
        return max(batches_of_epoch(self.count, batch=self.batch, world=self.world) - self.first, 0)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {self.epoch} order".encode()))
        order: Sequence[int] = torch.randperm(self.count, generator=generator).tolist()
        whole = self.batch * self.world
        for start in range(self.first * whole, len(order) - whole + 1, whole):
            begin = start + self.rank * self.batch
            yield list(order[begin : begin + self.batch])


def batches_of_epoch(count: int, *, batch: int, world: int) -> int:
    """Counts the whole batches that the processes together make of so many samples."""
    return count // (batch * world)
