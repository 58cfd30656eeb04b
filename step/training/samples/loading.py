"""Batches of clips, loaded by worker processes whose errors arrive as they are."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, cast

from torch.utils.data import DataLoader, Dataset, Sampler

from step.cpus import available_cpus
from step.errors import StepError
from step.parent import end_with_parent
from step.training.samples.augmentation import AugmentedSample
from step.training.samples.batch import Batch, collate


def affordable_workers(wanted: int, *, processes: int, say: Callable[[str], None]) -> int:
    """Returns how many processes should load clips: not more than there are CPUs, for they would wait for each other.

    Args:
        wanted: how many were asked for; 0 stays 0.
        processes: how many that train share this machine.
        say: is called with a line where it is fewer.
    """
    cpus = available_cpus()
    most = max(cpus // processes, 1)
    if wanted > most:
        shared = f", for {processes} that train" if processes > 1 else ""
        say(f"data.workers is {wanted}; {most} will load clips, because CPUs are {cpus}{shared}")
    return min(wanted, most)


class _ErrorsAsValues(Dataset["AugmentedSample | StepError"]):
    """Returns what goes wrong as a value: a worker would wrap what it raises in a traceback."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> AugmentedSample | StepError:
        try:
            return cast(AugmentedSample, self.dataset[index])
        except StepError as error:
            return error


def load_batches(
    dataset: Dataset[Any], order: Sampler[list[int]] | list[list[int]], *, workers: int, pin_memory: bool = False
) -> Iterator[Batch]:
    """Yields batches in the order of their samples' places.

    Args:
        dataset: of augmented samples.
        order: places of the samples of each batch.
        workers: processes that load; 0 for this one.
        pin_memory: for copies to a GPU.

    Raises:
        StepError: a sample cannot be loaded.
    """
    loader: DataLoader[Any] = DataLoader(
        _ErrorsAsValues(dataset),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=functools.partial(_begin_worker, os.getpid()),
    )
    for batch in loader:
        if isinstance(batch, StepError):
            raise batch
        yield batch


def _begin_worker(parent_id: int, _worker: int) -> None:
    end_with_parent(parent_id)


def _collate(samples: list[AugmentedSample | StepError]) -> Batch | StepError:
    for sample in samples:
        if isinstance(sample, StepError):
            return sample
    return collate(cast(list[AugmentedSample], samples))
