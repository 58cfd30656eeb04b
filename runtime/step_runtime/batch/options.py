"""How an archive is run: what makes two runs the same, and what may differ between them."""

import hashlib
from fractions import Fraction
from pathlib import Path

from step.bundles.manifest import read_bundle
from step.bundles.records import Record
from step.checkpoints.toy_model import find_bundle, find_checkpoint
from step.errors import StepError
from step.files.atomic import sha256
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BackendName
from step_runtime.clips.key_frame import DEFAULT_SCORE_THRESHOLD

EVERY_FRAME = "frame"


class Settings(Record):
    """What the results depend on: an output folder has results of one of these only.

    Attributes:
        model: digest of what the model is; see `model_digest`.
        every: seconds between key frames as an exact fraction, or "frame".
        score_threshold: of people.
        steps: progressive steps; None for all.
        reuse_backbone: see `Detector.run`.
        frames_fps: frames per second of folders of frames, as an exact fraction.
        detections: whether every detection is kept beside the people.
    """

    model: str
    every: str = "1"
    score_threshold: float = DEFAULT_SCORE_THRESHOLD
    steps: int | None = None
    reuse_backbone: bool = False
    frames_fps: str = "30"
    detections: bool = True

    @property
    def every_s(self) -> Fraction | None:
        """Seconds between key frames; None makes every frame one."""
        return None if self.every == EVERY_FRAME else Fraction(self.every)

    @property
    def exact_frames_fps(self) -> Fraction:
        """Frames per second of folders of frames."""
        return Fraction(self.frames_fps)

    def difference(self, other: "Settings") -> str | None:
        """Says what another run was told differently, a word for each; None where nothing was."""
        names = {"model": "--model", "every": "--every", "steps": "--steps", "frames_fps": "--frames-fps"}
        ours, theirs = self.model_dump(), other.model_dump()
        said = [
            f"{names.get(name, '--' + name.replace('_', '-'))} {_short(theirs[name])}, not {_short(value)}"
            for name, value in ours.items()
            if theirs[name] != value
        ]
        return "; ".join(said) or None


class WorkerOptions(Record):
    """What a worker opens; two runs of the same output may differ in it.

    Attributes:
        settings: what the results depend on.
        model: path of a bundle or checkpoint, or toy.
        backend, loop, device, threads: see `Detector.open`.
        clips_a_call: see `Detector.run`.
        scratch: folder for videos that are fetched; None for the system's.
    """

    settings: Settings
    model: str
    backend: BackendName = "auto"
    loop: Loop | None = None
    device: str = "auto"
    threads: int | None = None
    clips_a_call: int = 1
    scratch: Path | None = None


def model_digest(model: Path) -> str:
    """A digest of what a model computes: of a bundle's graphs, or of a checkpoint's file.

    Raises:
        StepError: there is no such model, or it is damaged.
    """
    folder = find_bundle(str(model))
    if folder.is_dir():
        manifest = read_bundle(folder)
        graphs = sorted(record.sha256 for record in manifest.graphs.values())
        return hashlib.sha256(repr((graphs, manifest.source.sha256)).encode()).hexdigest()
    checkpoint = find_checkpoint(str(model))
    if not checkpoint.is_file():
        raise StepError(f"{model}: no such bundle or checkpoint")
    return sha256(checkpoint)


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else str(value)
