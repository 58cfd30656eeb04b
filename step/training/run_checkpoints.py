"""Checkpoints of a run: a model that `load_checkpoint` reads, and beside it what training goes on from."""

import json
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from step.checkpoints.own_format import checkpoint_content, read_torch_file, write_torch_file
from step.errors import ArgumentError, StepError
from step.models.detector import StepDetector
from step.revision import git_revision, project_version
from step.training.config import TrainingConfig

BEST = "best.pth"
_NUMBERED = re.compile(r"([0-9]{7})\.pth")
# What may differ between a run and its continuation.
_FREE = ("data.folder", "data.workers", "data.cache", "keep", "save_every", "compile", "checkpointing")


@dataclass(frozen=True)
class TrainingProgress:
    """Says how far a run is.

    Attributes:
        epoch: that is under way, from 0.
        batch: batches of it that are done.
        update: updates that are done.
        best: highest mAP of the last step so far.
        best_epoch: after which epoch, from 1; None where a checkpoint does not say.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    best: float = -1.0
    best_epoch: int | None = None


def save(
    folder: Path,
    name: str,
    model: StepDetector,
    config: TrainingConfig,
    progress: TrainingProgress,
    state: dict[str, Any],
) -> Path:
    """Writes a checkpoint, atomically.

    Args:
        folder: of the run's checkpoints.
        name: of the file.
        model: what is to be used: the averaged weights where there are any.
        config, progress: of the run.
        state: of optimizer, loss scale and processes, the trained weights, and the averaged ones.
    """
    training = {
        "config": json.dumps(config.model_dump(mode="json")),
        "progress": vars(progress) | {},
        "versions": versions(),
        **state,
    }
    path = folder / name
    write_torch_file(checkpoint_content(model) | {"training": training}, path)
    return path


def prune(folder: Path, *, keep: int) -> None:
    """Removes all but the latest numbered checkpoints; none from a folder that is a link, where others' may lie."""
    if not folder.is_symlink():
        for path in numbered(folder)[:-keep]:
            path.unlink()


def numbered(folder: Path) -> list[Path]:
    """Lists the checkpoints of a run by update, the latest last."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NUMBERED.fullmatch(path.name) and path.is_file())


def forget_after(folder: Path, update: int) -> None:
    """Removes what a run did after the update that it goes on from: it will do it again.

    Raises:
        StepError: the folder is a link, behind which nothing is removed.
    """
    later = [path for path in numbered(folder) if int(path.stem) > update]
    best = folder / BEST
    if best.is_file() and read_torch_file(best)["training"]["progress"]["update"] > update:
        later.append(best)
    if later and folder.is_symlink():
        raise StepError(
            f"{folder}: is a link, and {later[0].name} in it is later than update {update}, where this run goes on; "
            "nothing is removed behind a link: remove what is later, or name another folder"
        )
    for path in later:
        path.unlink()


def find(resume: str, folder: Path) -> Path | None:
    """Finds the checkpoint that a run goes on from; None for "auto" where there is none yet.

    Args:
        resume: auto (the latest), best, or the path of one.
        folder: of the run's checkpoints.

    Raises:
        ArgumentError: there is none.
    """
    if resume == "auto":
        return next(reversed(numbered(folder)), None)
    path = folder / BEST if resume == "best" else Path(resume)
    if not path.is_file():
        raise ArgumentError(f"`resume` {resume}: no such checkpoint ({path}); give auto, best or the path of one")
    return path


def read_training(path: Path, config: TrainingConfig) -> dict[str, Any]:
    """Reads what a run goes on from; `progress` is a `TrainingProgress`.

    Raises:
        StepError: not a checkpoint of a run, or of one with another config.
    """
    training = read_torch_file(path).get("training")
    if not isinstance(training, dict) or "optimizer" not in training:
        raise StepError(f"{path}: holds a model but no training to go on with; name it as model.checkpoint instead")
    before, now = _flat(json.loads(training["config"])), _flat(config.model_dump(mode="json"))
    differing = sorted(key for key in before | now if before.get(key) != now.get(key) and key not in _FREE)
    if differing:
        shown = ", ".join(f"{key} (was {before.get(key)!r}, is {now.get(key)!r})" for key in differing[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise StepError(f"{path}: is of another config: {shown}{more}; resume with that one or begin a new run")
    return training | {"progress": TrainingProgress(**training["progress"])}


def versions() -> dict[str, str]:
    """Names the versions of what a run depends on, and the revision of the working tree that the package lies in."""
    found = {"step-trt": project_version(), "torch": str(torch.__version__), "python": platform.python_version()}
    revision = git_revision()
    return found if revision is None else found | {"git": revision}


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[above + key] = value
    return flat
