"""What the benchmark and its workers say to each other: a line of JSON for each request and each answer."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from step.bundles.records import Record
from step_runtime.benchmark.configurations import BenchConfiguration

WORKER = "step_runtime.benchmark.worker"
"""The module that a worker runs."""


class Load(Record):
    """Load a configuration, and make its first call on clips of a .npy file, uint8 [B, F, H, W, 3]."""

    kind: Literal["load"] = "load"
    configuration: BenchConfiguration
    clips: Path


class TimeCalls(Record):
    """Make so many calls, one after the other."""

    kind: Literal["time_calls"] = "time_calls"
    count: int


class ScoreData(Record):
    """Run on a data set; decoded clips are kept in the folder `cache`."""

    kind: Literal["score_data"] = "score_data"
    data: Path
    split: str
    cache: Path


class TellMemory(Record):
    """Say how much memory was taken at most."""

    kind: Literal["tell_memory"] = "tell_memory"


class Loaded(Record):
    """What was loaded.

    Attributes:
        device: what runs it, as its library says.
        gpu: index of the GPU; None on a CPU.
        threads: CPU threads that the library computes with; see `Backend.threads`.
        load_s, first_s: of loading, and of the first call.
        model_bytes: of what is loaded.
        build_s: that building it took; None where it was not built.
        source_sha256: of the checkpoint that the model comes from.
    """

    kind: Literal["loaded"] = "loaded"
    device: str
    gpu: int | None
    threads: int | None
    load_s: float
    first_s: float
    model_bytes: int
    build_s: float | None
    source_sha256: str


class Times(Record):
    """Seconds of each call."""

    kind: Literal["times"] = "times"
    times_s: list[float]


class MeanAp(Record):
    """frame-mAP at 0.5 after the last step that is run."""

    kind: Literal["mean_ap"] = "mean_ap"
    mean_ap: float


class Memory(Record):
    """Largest memory so far, on the host and on the GPU (None where nothing says)."""

    kind: Literal["memory"] = "memory"
    host_bytes: int
    device_bytes: int | None


class Failed(Record):
    """Why there is no other answer, in one line."""

    kind: Literal["failed"] = "failed"
    problem: str


Request = Load | TimeCalls | ScoreData | TellMemory
Answer = Loaded | Times | MeanAp | Memory | Failed
REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
ANSWERS: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])
