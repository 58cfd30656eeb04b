"""What `gpu_check.json` holds: the machine, and one record for each stage with its figures."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from step.bundles.records import Record
from step.errors import StepError
from step.files.atomic import atomic_path

Status = Literal["running", "passed", "failed", "skipped", "timed out", "crashed"]
"""`running` is what a stage's own file says until it ends; `skipped` means that there was nothing to check here."""

UNKNOWN_GPU = "unknown GPU"
"""Device of a check where there is a driver, or one was asked for, and no GPU could be used."""

BAD: frozenset[Status] = frozenset({"failed", "timed out", "crashed"})


class Figure(Record):
    """Is one thing that was measured or found.

    Attributes:
        table: title of the table that it belongs to; "" for the stage's own list.
        row: what it is of.
        column: which of the row's figures; the unit is its last word where it has one ("median us").
        value: number or text.
    """

    table: str
    row: str
    column: str
    value: float | int | str


class StageResult(Record):
    """Says what came of one stage.

    Attributes:
        name: as in `--only`.
        title: what it checks.
        command: what repeats it alone.
        status: how it ended.
        seconds: wall-clock time of its process.
        problems: what was wrong, or why it was skipped; one line each.
        figures: in the order in which they were found.
    """

    name: str
    title: str
    command: str
    status: Status
    seconds: float
    problems: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()


class CheckResult(Record):
    """Records one run of the check.

    Attributes:
        device: the GPU's name; "none" where the stand-in and the CPU took its place.
        made_at: UTC, ISO 8601.
        versions: of libraries, driver and working tree, by name.
        seconds: of the whole run.
        stages: in the order of the catalogue.
    """

    device: str
    made_at: str
    versions: dict[str, str]
    seconds: float
    stages: tuple[StageResult, ...]


def write_record(record: Record, path: Path) -> None:
    """Writes a record as JSON, whole or not at all.

    Raises:
        StepError: it cannot be written.
    """
    with atomic_path(path) as scratch:
        scratch.write_text(record.model_dump_json(indent=1) + "\n")


def read_check(path: Path) -> CheckResult:
    """Reads `gpu_check.json`.

    Raises:
        StepError: no such file, or not one that this version wrote.
    """
    try:
        return CheckResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StepError(f"{path}: cannot be read ({error.strerror}); make gpu-check writes it") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise StepError(
            f"{path}: is no gpu_check.json of this version ({where}: {error.errors()[0]['msg']})"
        ) from error
