"""Opens --data for `step-eval` and `step-eval parity`."""

from pathlib import Path

from step.checkpoints.toy_model import NAME
from step.data.dataset_folder import DatasetFolder
from step.data.toy.toy_cache import toy_validation_set
from step.errors import ArgumentError, StepError
from step.nearest import did_you_mean
from step.reporter import Reporter


def open_data(data: Path, split: str, reporter: Reporter) -> DatasetFolder:
    """Opens a folder, or the toy validation set.

    Raises:
        StepError: see `DatasetFolder.open` and `toy_validation_set`.
    """
    if str(data) != NAME or data.exists():
        near = did_you_mean(str(data), (NAME,))
        if near and not data.exists():
            raise StepError(f"{data}: no such folder{near}")
        return DatasetFolder.open(data, split)
    if split != "val":
        raise ArgumentError(f"`split` is {split!r}; `data` toy has only val; step-data toy makes both")
    with reporter.progress("making the toy validation set", unit="videos") as progress:
        folder = toy_validation_set(progress.update)
    return DatasetFolder.open(folder, split)
