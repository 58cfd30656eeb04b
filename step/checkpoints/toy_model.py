"""The small trained model that comes with the package, as a checkpoint and as a bundle (torch-free).

It finds the synthetic figures of `step-data toy` and says what they do; docs/training.md has the command that
trained it, and `step-export toy -o BUNDLE` makes such a bundle.
"""

from pathlib import Path

from step.bundles.manifest import MANIFEST, PACKAGED

FOLDER = Path(__file__).parent / "toy_model_files"
CHECKPOINT = FOLDER / "model.pth"
BUNDLE = FOLDER / "bundle"
NAME = PACKAGED
WHAT_IT_KNOWS = "the model toy knows drawn figures only (step-run --demo); what it says of real video means nothing"


def find_checkpoint(model: str | Path) -> Path:
    """Finds a checkpoint's path; `toy`, where no model of that name lies, is the packaged one."""
    return CHECKPOINT if is_packaged(model) else Path(model)


def find_bundle(model: str | Path) -> Path:
    """Finds a model's path; `toy`, where no model of that name lies, is the packaged bundle."""
    return BUNDLE if is_packaged(model) else Path(model)


def model_name(path: Path) -> str:
    """Names a model in messages as people type it: the packaged one, bundle or checkpoint, is `toy`."""
    return NAME if path in (BUNDLE, CHECKPOINT) else str(path)


def is_packaged(model: str | Path) -> bool:
    """Says whether a model's name means the packaged one, not a checkpoint or bundle that lies here."""
    path = Path(model)
    return str(model) == NAME and not (path.is_file() or (path / MANIFEST).exists())
