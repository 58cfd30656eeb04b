"""What `step-eval` and `step-eval parity` share: opening --data, and the bar."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from step.data.toy_cache import toy_validation_set
from step.errors import StepError
from step_runtime.dataset_run import DatasetFolder


def open_data(data: Path, split: str, console: Console) -> DatasetFolder:
    """A folder, or the toy validation set.

    Raises:
        StepError: see `DatasetFolder.open` and `toy_validation_set`.
    """
    if str(data) != "toy" or data.exists():
        return DatasetFolder.open(data, split)
    if split != "val":
        raise StepError(f"--split is {split!r}; --data toy has only val; step-data toy makes both")
    with progress_bar(console) as bar:
        task = bar.add_task("making up the toy validation set", total=None)
        folder = toy_validation_set(lambda done, total: bar.update(task, completed=done, total=total))
    return DatasetFolder.open(folder, split)


def progress_bar(console: Console) -> Progress:
    """Gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
