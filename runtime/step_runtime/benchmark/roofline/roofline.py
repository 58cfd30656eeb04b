"""How far each stage is from what a machine can do at most.

Source: the roofline model (Williams, Waterman and Patterson, 2009): a stage of intensity I (multiply-adds a byte)
reaches at most min(peak, I x bandwidth).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from step.bundles.graph_spec import FUSED
from step.files.atomic import atomic_path
from step_runtime.benchmark.machine import machine, versions
from step_runtime.benchmark.roofline.peaks import Peaks
from step_runtime.benchmark.roofline.stage_times import PRODUCTS, StageTimes
from step_runtime.benchmark.roofline.work import GraphWork

SCHEMA = 3


@dataclass(frozen=True, kw_only=True)
class StageLimit:
    """The least time of one stage.

    Attributes:
        stage: its name.
        work: what it has to do.
        intensity: multiply-adds a byte of what has to move at least.
        attainable_per_s: multiply-adds a second, at most.
        floor_s: of a call, at least.
        is_memory_bound: whether moving bytes takes longer than computing.
    """

    stage: str
    work: GraphWork
    intensity: float
    attainable_per_s: float
    floor_s: float
    is_memory_bound: bool

    def achieved_per_s(self, time_s: float) -> float:
        """Multiply-adds a second of a call that took so long."""
        return self.work.multiply_adds / time_s

    def fraction(self, time_s: float) -> float:
        """Share of the limit that a call reached which took so long; 1 is the limit."""
        return self.floor_s / time_s


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """How near a bundle is to what a machine can do.

    Attributes:
        bundle: where it lies.
        batch: clips of a call.
        precision: of the products that the peak is of.
        peaks: the machine's.
        limits: of every stage in order, and of the fused graph where the bundle has one.
        times: what was measured; empty where nothing was.
        threads: CPU threads that the peaks are of; None for a GPU's.
        source_sha256: of the checkpoint that the bundle was exported from.
    """

    bundle: str
    batch: int
    precision: str
    peaks: Peaks
    limits: tuple[StageLimit, ...]
    times: tuple[StageTimes, ...] = ()
    threads: int | None = None
    source_sha256: str = ""

    @property
    def stages(self) -> tuple[StageLimit, ...]:
        """Without the fused graph."""
        return tuple(limit for limit in self.limits if limit.stage != FUSED)

    @property
    def measured(self) -> tuple[StageTimes, ...]:
        """Libraries that have times."""
        return tuple(times for times in self.times if times.problem is None)

    @property
    def floor_s(self) -> float:
        """Least time of a call with all stages, one after the other."""
        return sum(limit.floor_s for limit in self.stages)

    @property
    def product_s(self) -> float:
        """All multiply-adds of the stages at the peak rate, if nothing had to move."""
        return sum(limit.work.multiply_adds for limit in self.stages) / self.peaks.rate(self.precision)

    @property
    def turns_per_s(self) -> float | None:
        """Multiply-adds a second that the best library's product reached in rounds with the stages; None without times.

        The peak is the best moment of a product that runs alone. On a machine whose speed changes, because others share
        it or its clock falls, this is what the stages could have had while they were timed.
        """
        return max((rate for times in self.measured if (rate := times.product_per_s) is not None), default=None)

    def over_turns(self, times: StageTimes) -> float | None:
        """Time of the whole over that of its multiply-adds at `turns_per_s`."""
        rate = self.turns_per_s
        multiply_adds = sum(limit.work.multiply_adds for limit in self.stages)
        return None if rate is None else self.whole_s(times) * rate / multiply_adds

    def whole_s(self, times: StageTimes) -> float:
        """Median of the fused graph's calls; of a bundle without one, the sum of the stages' medians."""
        if FUSED in times.times_s:
            return times.median_s(FUSED)
        return sum(times.median_s(limit.stage) for limit in self.stages)

    def write(self, path: Path) -> None:
        """As JSON, atomically."""
        with atomic_path(path) as scratch:
            scratch.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with what follows from them."""
        rows = []
        for limit in self.limits:
            row = dataclasses.asdict(limit)
            row["measured"] = {
                times.backend: {
                    "median_s": times.median_s(limit.stage),
                    "achieved_per_s": limit.achieved_per_s(times.median_s(limit.stage)),
                    "fraction": limit.fraction(times.median_s(limit.stage)),
                    "times_s": times.times_s[limit.stage],
                }
                for times in self.measured
            }
            rows.append(row)
        return {
            "schema_version": SCHEMA,
            "bundle": self.bundle,
            "batch": self.batch,
            "precision": self.precision,
            "threads": self.threads,
            "source_sha256": self.source_sha256,
            "machine": machine(),
            "versions": versions(),
            "peaks": dataclasses.asdict(self.peaks),
            "floor_s": self.floor_s,
            "product_s": self.product_s,
            "product_in_turns_per_s": self.turns_per_s,
            "whole": {
                times.backend: {
                    "median_s": self.whole_s(times),
                    "over_product": self.whole_s(times) / self.product_s,
                    "over_product_in_rounds": self.over_turns(times),
                }
                for times in self.measured
            },
            "products_s": {
                times.backend: {name: times.times_s[name] for name in PRODUCTS if name in times.times_s}
                for times in self.measured
            },
            "problems": {times.backend: times.problem for times in self.times if times.problem is not None},
            "stages": rows,
        }


def stage_limit(stage: str, work: GraphWork, peaks: Peaks, precision: str) -> StageLimit:
    """The least time of a stage.

    Raises:
        StepError: the machine has no rate in this precision.
    """
    compute_s = work.multiply_adds / peaks.rate(precision)
    memory_s = work.least_bytes / peaks.bytes_per_s
    floor_s = max(compute_s, memory_s)
    return StageLimit(
        stage=stage,
        work=work,
        intensity=work.multiply_adds / work.least_bytes,
        attainable_per_s=work.multiply_adds / floor_s,
        floor_s=floor_s,
        is_memory_bound=memory_s > compute_s,
    )


def roofline(
    work: Mapping[str, GraphWork],
    peaks: Peaks,
    *,
    bundle: str,
    batch: int,
    precision: str,
    times: Sequence[StageTimes] = (),
) -> Roofline:
    """Limits of all stages.

    Args:
        work: by stage, what `stage_work` counted for this batch.
        peaks: of the machine.
        bundle, batch, precision, times: see `Roofline`.

    Raises:
        StepError: the machine has no rate in this precision.
    """
    return Roofline(
        bundle=bundle,
        batch=batch,
        precision=precision,
        peaks=peaks,
        limits=tuple(stage_limit(name, one, peaks, precision) for name, one in work.items()),
        times=tuple(times),
    )
