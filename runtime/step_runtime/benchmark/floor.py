"""The least time of a clip on this machine, from a file that `step-bench roofline --json` wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from step.errors import StepError
from step.files.json_files import read_json
from step_runtime.benchmark.machine import same_machine
from step_runtime.benchmark.results import ResultRow
from step_runtime.benchmark.roofline.roofline import SCHEMA

_COMPUTED_IN = {"fp32": ("fp32", "fp16")}  # precisions of graphs that a CPU computes in fp32
_ADVICE = "measure again with: step-bench roofline BUNDLE --json FILE"


class _RooflineFile(BaseModel):
    """The part of the file that is needed here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int
    batch: int
    precision: str
    threads: int | None
    source_sha256: str
    machine: dict[str, Any]
    floor_s: float


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least time of a call of all stages, and what it holds for.

    Attributes:
        floor_s: seconds of a call.
        batch: clips of a call.
        precision: that the products were computed in.
        threads: CPU threads.
        source_sha256: of the model's checkpoint.
    """

    floor_s: float
    batch: int
    precision: str
    threads: int
    source_sha256: str

    def behind(self, row: ResultRow) -> float | None:
        """Says by what share of the floor a call takes longer; None where the floor is not that of this row."""
        configuration = row.configuration
        is_its = (
            row.p50_ms is not None
            and row.threads == self.threads
            and row.source_sha256 == self.source_sha256
            and configuration.get("batch") == self.batch
            and configuration.get("num_steps") is None
            and configuration.get("precision") in _COMPUTED_IN.get(self.precision, ())
        )
        return (row.p50_ms or 0.0) / (1e3 * self.floor_s) - 1 if is_its else None


def read_floor(path: Path, machine: dict[str, Any]) -> Floor:
    """Reads the floor of a CPU.

    Args:
        path: what `step-bench roofline --json` wrote.
        machine: this one, as `step_runtime.benchmark.machine.machine` gives it.

    Raises:
        StepError: no such file, of another schema, of a GPU, or of another machine.
    """
    content = read_json(path, advice=_ADVICE)
    try:
        found = _RooflineFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StepError(f"{path}: is no roofline of ours: {where}: {first['msg']}; {_ADVICE}") from error
    if found.schema_version != SCHEMA:
        raise StepError(f"{path}: has schema {found.schema_version}, this step-bench reads {SCHEMA}; {_ADVICE}")
    if found.threads is None:
        raise StepError(f"{path}: is the roofline of a GPU; the floor of a benchmark is a CPU's: {_ADVICE}")
    if not same_machine(found.machine, machine):
        raise StepError(f"{path}: is the roofline of another machine; {_ADVICE}")
    return Floor(
        floor_s=found.floor_s,
        batch=found.batch,
        precision=found.precision,
        threads=found.threads,
        source_sha256=found.source_sha256,
    )
