"""Writes a model repository for NVIDIA Triton: the models `fused` and `step` of a bundle (torch-free).

Source: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from step.arguments import check_whole
from step.bundles.manifest import ENGINES_LOCK, find_foreign, read_bundle
from step.bundles.service_spec import DEFAULT_CLIPS_A_CALL
from step.errors import ArgumentError, StepError
from step.files.atomic import atomic_path
from step.files.scratch import is_scratch_name
from step_export.triton.fused_model import FusedModel, choose_fused
from step_export.triton.model_config import ModelConfig
from step_export.triton.step_model import BUNDLE, MODEL_FILE, MODEL_TEXT, STEP, step_config

CONFIG = "config.pbtxt"
VERSION = "1"
_FILES = {"fused": ("model.onnx", "model.plan"), STEP: (MODEL_FILE, BUNDLE)}
_MOST = 1024


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """How the models are served.

    Attributes:
        batch: most clips of a call; None takes what an engine was built for, or 8.
        instances: of each model, on each device.
    """

    batch: int | None = None
    instances: int = 1

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ArgumentError: such a number.
        """
        if self.batch is not None:
            check_whole("triton_batch", self.batch, least=1, most=_MOST)
        check_whole("triton_instances", self.instances, least=1, most=_MOST)


def write_repository(
    bundle: Path, repository: Path, options: RepositoryOptions, *, overwrite: bool = False
) -> tuple[str, ...]:
    """Writes a repository, whole or not at all.

    Args:
        bundle: what is served; it is copied.
        repository: folder to write.
        options: how the models are served.
        overwrite: whether an older repository of ours is replaced; any other folder is left alone.

    Returns:
        What whoever starts the server has to know, a line each.

    Raises:
        ArgumentError: an older repository, or numbers that the bundle does not take.
        StepError: no bundle, a folder with something else in it, or nowhere to write.
    """
    options.check()
    check_repository(repository, overwrite=overwrite)
    manifest = read_bundle(bundle)
    foreign = find_foreign(bundle)
    if foreign is not None:
        raise StepError(f"{bundle}: is not copied, because {foreign} is none of a bundle's files; move it away first")
    fused = choose_fused(bundle, manifest, batch=options.batch, instances=options.instances)
    clips = manifest.batch or options.batch or (fused.config.max_batch if fused else 0) or DEFAULT_CLIPS_A_CALL
    with atomic_path(repository) as folder:
        folder.mkdir()
        if fused is not None:
            _write_fused(folder, fused)
        version = _write_model(folder, step_config(manifest, clips_a_call=clips, instances=options.instances))
        (version / MODEL_FILE).write_text(MODEL_TEXT, encoding="utf-8")
        shutil.copytree(bundle, version / BUNDLE, ignore=_left_out, copy_function=shutil.copyfile)
        if read_bundle(version / BUNDLE) != manifest:
            raise StepError(f"{bundle}: changed while it was copied; run it again")
        check_repository(repository, overwrite=overwrite)  # all of an older one goes
    if fused is None:
        return ("the bundle has no fused graph, so that the repository has the model step only",)
    return fused.notes


def check_repository(repository: Path, *, overwrite: bool) -> None:
    """Refuses to replace what must not be replaced; for before long work, too.

    Raises:
        ArgumentError: an older repository, without `overwrite`.
        StepError: something that no repository of ours has.
    """
    if not repository.exists():
        return
    if not repository.is_dir():
        raise StepError(f"{repository}: a file is in the way; choose another place for the repository")
    foreign = _find_foreign(repository)
    if foreign is not None:
        raise StepError(
            f"{repository}: is not replaced, because {foreign} is none of step-export's; name a folder of its own "
            "(tritonserver takes --model-repository several times)"
        )
    if not overwrite and any(repository.iterdir()):
        raise ArgumentError(
            f"{repository}: a repository is there already; replace it with `overwrite`, or name another folder"
        )


def _find_foreign(repository: Path) -> Path | None:
    """Finds the first thing that no repository of ours has."""
    models = sorted(path for path in repository.iterdir() if not is_scratch_name(path.name))
    for model in models:
        if model.name not in _FILES or not model.is_dir() or model.is_symlink():
            return model
        for path in sorted(model.iterdir()):
            if path.name not in (CONFIG, VERSION):
                return path
        for path in sorted((model / VERSION).glob("*")):
            if path.name not in _FILES[model.name] and path.name != "__pycache__":
                return path
    return None


def _write_fused(folder: Path, fused: FusedModel) -> None:
    version = _write_model(folder, fused.config)
    shutil.copyfile(fused.source, version / fused.config.file)


def _write_model(folder: Path, config: ModelConfig) -> Path:
    """Returns the folder of the model's version."""
    version = folder / config.name / VERSION
    version.mkdir(parents=True)
    (version.parent / CONFIG).write_text(config.text(), encoding="utf-8")
    return version


def _left_out(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == ENGINES_LOCK or is_scratch_name(name)]
