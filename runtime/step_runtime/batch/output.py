"""The folder that an archive's results go to: its files, and the settings that they are of."""

import json
from pathlib import Path

from pydantic import ValidationError

from step.bundles.records import Record
from step.errors import ArgumentError, StepError
from step.files.atomic import atomic_path
from step.files.json_files import read_json
from step_runtime.batch.options import Settings
from step_runtime.batch.records import RecordStore, file_key, key_folder

SETTINGS_FILE = "batch.json"
MANIFEST_FILE = "manifest.parquet"
_VERSION = 1


class BatchFile(Record):
    """`batch.json`: what the results of the folder are of.

    Attributes:
        schema_version: of the folder's layout.
        model: as it was named, for people; `settings.model` is what counts.
        settings: what the results depend on.
    """

    schema_version: int = _VERSION
    model: str
    settings: Settings


class Output:
    """An output folder.

    Args:
        folder: its path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = RecordStore(folder / "records")

    @property
    def manifest(self) -> Path:
        """The table with a row for each video."""
        return self.folder / MANIFEST_FILE

    def people(self, name: str) -> Path:
        """The table of a video's people."""
        return self._table("people", name)

    def detections(self, name: str) -> Path:
        """The table of a video's detections."""
        return self._table("detections", name)

    def tables(self, kind: str) -> list[Path]:
        """All tables of "people" or "detections" that are there, in order of their names."""
        return sorted((self.folder / kind).glob("*/*.parquet"))

    def prepare(self, model: str, settings: Settings) -> None:
        """Makes the folder, or finds that what is in it is of the same settings.

        Raises:
            ArgumentError: it is of others, which the line names, or something else is in it.
            StepError: it cannot be written, or is damaged.
        """
        if not (self.folder / SETTINGS_FILE).is_file():
            if self.folder.exists() and not self.folder.is_dir():
                raise ArgumentError(f"{self.folder}: is a file; name a folder with `out`")
            foreign = self._find_foreign()
            if foreign is not None and not (self.folder / SETTINGS_FILE).is_file():  # another shard may be quicker
                raise ArgumentError(
                    f"{self.folder}: holds {foreign}, and no {SETTINGS_FILE} of an earlier run; name a new folder "
                    "with `out`"
                )
            content = BatchFile(model=model, settings=settings).model_dump(mode="json")
            with atomic_path(self.folder / SETTINGS_FILE) as path:
                path.write_text(json.dumps(content, indent=1) + "\n")
        earlier = read_batch_file(self.folder)
        difference = earlier.settings.difference(settings)
        if difference is not None:
            was = f" (it was {earlier.model})" if earlier.settings.model != settings.model else ""
            raise ArgumentError(
                f"{self.folder}: holds results of other settings: now {difference}{was}; give those again, or name "
                "another folder with `out`"
            )

    def _find_foreign(self) -> str | None:
        if not self.folder.is_dir():
            return None
        names = sorted(path.name for path in self.folder.iterdir())
        return next((name for name in names if not name.startswith(".")), None)

    def _table(self, kind: str, name: str) -> Path:
        key = file_key(name)
        return self.folder / kind / key_folder(key) / f"{key}.parquet"


def read_batch_file(folder: Path) -> BatchFile:
    """What an output folder is of.

    Raises:
        StepError: it is no output folder of `step-batch`, or another version's, or damaged.
    """
    path = folder / SETTINGS_FILE
    advice = "name another folder with --out"
    if not path.is_file():
        raise StepError(f"{folder}: holds no {SETTINGS_FILE}, so it is no output of step-batch")
    content = read_json(path, advice=advice)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != _VERSION:
        raise StepError(f"{path}: layout version {version!r}, this step-trt knows {_VERSION}; {advice}")
    try:
        return BatchFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise StepError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; {advice}") from error
