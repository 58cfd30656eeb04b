"""Stage: updates of the full-size detector at three batches and precisions, then the toy model for a minute."""

import importlib.util
import os
import subprocess
from pathlib import Path

import torch
from torchvision_on_cpu import load_torchvision

from gpu_check.models import find_toy_data
from gpu_check.stage import Report, StageOptions, StageSkippedError, run_stage
from gpu_check.timing import need_cuda
from step.errors import StepError
from step.training.config import Precision

_NEEDS = ("torchvision", "lightning_fabric", "tensorboard", "yaml")
_BATCHES = (2, 8, 4)  # the release's share of one of four GPUs first, then its whole batch
_PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32", "bf16")
_ROW_S = 6.0  # a row that cannot be done in this time is not begun
_ROWS_S = 50.0  # for all rows; half of the time where that is less
_TOY_S, _LOADED_S = 45.0, 12.0
_MARGIN_S = 6.0
_MOST_WORKERS = 12


def measure(report: Report, options: StageOptions) -> None:
    """Measures updates, then the toy model with its clips in memory, then with clips that other processes load.

    Raises:
        StageSkippedError: a library of training is not here, or torchvision is one for another PyTorch.
    """
    for name in _NEEDS:
        if importlib.util.find_spec(name) is None:
            raise StageSkippedError(f"training needs {name}, which is not here")
    try:
        load_torchvision()
    except (AssertionError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        raise StageSkippedError(f"torchvision does not load here: {error}") from error
    need_cuda(options.device)
    if options.device == "none":
        torch.set_num_threads(1)  # small tensors are not worth a second one, which waits for others' work
    data = find_toy_data(options.work, options.device)
    _updates(report, options, data)
    _toy(report, options, data)


def _updates(report: Report, options: StageOptions, data: Path) -> None:
    from gpu_check.training_updates import TABLE, Plan, full_size_config, measure_updates

    is_cuda = options.device == "cuda"
    plan = Plan(options.device, warm_up=3 if is_cuda else 1, updates=5 if is_cuda else 1, work=options.work)
    end_s = options.left_s - min(_ROWS_S, options.left_s / 2)
    for batch in _BATCHES:
        for precision in _PRECISIONS:
            row = f"{precision}, batch {batch}"
            if options.left_s - end_s < _ROW_S and is_cuda:
                report.figure(row, "left out: no time", "median ms", table=TABLE)
            elif precision == "fp16" and not is_cuda:
                report.figure(row, "needs a GPU", "median ms", table=TABLE)
            else:
                config = full_size_config(precision, batch, data=data, device=options.device)
                measure_updates(report, row, config, plan)


def _toy(report: Report, options: StageOptions, data: Path) -> None:
    from gpu_check.toy_training import TABLE, Run, train_toy

    workers = max(1, min((os.cpu_count() or 1) - 2, _MOST_WORKERS))
    runs = (
        Run("clips in memory", 0, min(_TOY_S, options.left_s - _LOADED_S - _MARGIN_S)),
        Run(f"clips loaded by {workers} processes", workers, _LOADED_S),
    )
    for run in runs:
        if min(run.seconds, options.left_s - _MARGIN_S) < _LOADED_S and options.device == "cuda":
            report.figure(run.row, "left out: no time", "median ms", table=TABLE)
            continue
        try:
            train_toy(report, run, data=data, work=options.work, device=options.device)
        except (RuntimeError, StepError) as error:
            report.problem(f"{run.row}: {error}")


if __name__ == "__main__":
    run_stage("training", measure)
