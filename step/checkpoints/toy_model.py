"""The small trained model that comes with the package (torch-free).

It finds the synthetic figures of `step-data toy` and says what they do; docs/training.md has the command that
trained it.
"""

from pathlib import Path

from step.bundles.manifest import MANIFEST

FOLDER = Path(__file__).parent / "toy_model_files"
CHECKPOINT = FOLDER / "model.pth"
NAME = "toy"


def find_model(model: str | Path) -> Path:
    """Finds a model's path; `toy`, where no checkpoint or bundle of that name lies, is the packaged checkpoint."""
    path = Path(model)
    is_model = path.is_file() or (path / MANIFEST).exists()
    return CHECKPOINT if str(model) == NAME and not is_model else path
