"""Opens --data for `step-eval` and `step-eval parity`."""

from pathlib import Path

from rich.console import Console

from step.cli import progress_bar
from step.data.dataset_folder import DatasetFolder
from step.data.toy.toy_cache import toy_validation_set
from step.errors import ArgumentError


def open_data(data: Path, split: str, console: Console) -> DatasetFolder:
    """Opens a folder, or the toy validation set.

    Raises:
        StepError: see `DatasetFolder.open` and `toy_validation_set`.
    """
    if str(data) != "toy" or data.exists():
        return DatasetFolder.open(data, split)
    if split != "val":
        raise ArgumentError(f"`split` is {split!r}; `data` toy has only val; step-data toy makes both")
    with progress_bar(console) as bar:
        task = bar.add_task("making the toy validation set", total=None)
        folder = toy_validation_set(lambda done, total: bar.update(task, completed=done, total=total))
    return DatasetFolder.open(folder, split)
