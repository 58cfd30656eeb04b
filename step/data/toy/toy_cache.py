"""Makes the toy validation set once for a user, and keeps it (torch-free)."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock

import step.data.toy.toy
import step.data.toy.toy_figures
from step.classes import AVA_CLASS_NAMES
from step.data.toy.toy import generate
from step.errors import StepError
from step.files.atomic import cannot_write

VALIDATION_VIDEOS = 20
_DEMO = "toy-demo"
_DEMO_SEED = 7  # of figures that the packaged model has not seen


def toy_validation_set(progress: Callable[[int, int], None] = lambda _done, _total: None) -> Path:
    """Returns the folder of the data set that `--data toy` means: `step-data toy`'s validation videos of seed 0.

    It lies in $STEP_DATA_CACHE or the user's cache, under a name that changes with the code that makes it.

    Args:
        progress: is called with how many videos are made, of how many, while there is something to make.

    Raises:
        StepError: nowhere to write.
    """
    folder = toy_folder()
    _make_once(folder, lambda: generate(folder, videos={"val": VALIDATION_VIDEOS}, seed=0, progress=progress))
    return folder


def _make_once(folder: Path, make: Callable[[], None]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                make()
    except OSError as error:
        raise cannot_write(folder, error) from error


def toy_demo_video() -> Path:
    """Returns a toy video of another seed than the packaged model was trained on, made once and kept.

    Raises:
        StepError: nowhere to write.
    """
    folder = toy_folder().with_name(f"{_DEMO}-{_version()}")
    _make_once(folder, lambda: generate(folder, videos={"val": 1}, seed=_DEMO_SEED))
    return folder / "videos" / "val_000.mp4"


def toy_folder() -> Path:
    """Returns where `toy_validation_set` keeps it, whether it is there or not.

    Raises:
        StepError: this user has no home.
    """
    chosen = os.environ.get("STEP_DATA_CACHE")
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(chosen) if chosen else (Path(home) if home else Path.home() / ".cache") / "step-trt" / "data"
    except RuntimeError as error:
        raise StepError(
            "this user has no home folder to keep the toy data in; name one: STEP_DATA_CACHE=/path"
        ) from error
    return root / f"toy-{_version()}"


def _version() -> str:
    """Digests what the images depend on: the generator's code, and the libraries that draw and encode."""
    import av

    libraries = [cv2.__version__, np.__version__, *sorted(av.library_versions.items())]
    digest = hashlib.sha256(repr((libraries, AVA_CLASS_NAMES)).encode())
    for module in (step.data.toy.toy, step.data.toy.toy_figures):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:12]
