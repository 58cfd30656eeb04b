"""What `step-batch` was told: checked, and made into what is run."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import click

from step.arguments import exact_rate
from step.cpus import available_cpus
from step.errors import StepError
from step.files.locks import sole_writer
from step.reporter import Reporter
from step_runtime.backends.base import Loop
from step_runtime.backends.gpus import cuda_driver_is_present
from step_runtime.backends.select import BackendName
from step_runtime.batch.local_run import run_here
from step_runtime.batch.manifest import Known, fold, forget_failures
from step_runtime.batch.options import EVERY_FRAME, Settings, WorkerOptions, model_digest
from step_runtime.batch.output import Output
from step_runtime.batch.ray_run import RayOptions, check_address, check_ray, run_on_ray
from step_runtime.batch.ray_worker import ProcessMaker
from step_runtime.batch.records import VideoRecord
from step_runtime.batch.shards import Shard
from step_runtime.batch.video_list import Video, list_videos, name_videos
from step_runtime.clips.feature_windows import groups_between_keys
from step_runtime.outputs.parquet_table import parquet_is_possible


@dataclass(frozen=True)
class BatchCommand:
    """What was typed; see `step-batch --help`."""

    sources: tuple[str, ...]
    model: Path
    out: Path
    workers: int | None
    address: str | None
    shard: Shard | None
    retry_failed: bool
    every: Fraction | None
    score_threshold: float
    detections: bool
    steps: int | None
    reuse_backbone: bool
    clips_a_call: int
    backend: str
    loop: str | None
    device: str
    threads: int | None
    frames_fps: float
    scratch: Path | None

    def check(self) -> None:
        """Refuses what needs neither the model nor the videos to be refused.

        Raises:
            StepError: options that exclude each other, or Ray is missing.
        """
        if self.shard is not None and self.address is not None:
            raise click.UsageError("--shard with --address; a shard runs without Ray, leave one of them out")
        if self.reuse_backbone and self.loop == "fused":
            raise StepError("--reuse-backbone with --loop fused, whose one graph cannot be cut; leave --loop out")
        if self.reuse_backbone and self.clips_a_call > 1:
            raise StepError("--reuse-backbone with --clips-a-call, which it has no use for; leave one of them out")
        if self.reuse_backbone:
            groups_between_keys(self.every)
        if self.scratch is not None and not self.scratch.is_dir():
            raise StepError(f"--scratch {self.scratch}: no such folder")
        if not parquet_is_possible():
            raise StepError("step-batch writes Parquet and needs pyarrow; install it with: pip install pyarrow")
        if self.shard is None:
            if self.device.startswith("cuda:"):
                raise StepError(f"--device is {self.device}; Ray gives each worker a GPU of its own, give cuda")
            check_ray()
        if self.address is not None:
            check_address(self.address)

    def settings(self) -> Settings:
        """What the results depend on.

        Raises:
            StepError: see `model_digest`.
        """
        return Settings(
            model=model_digest(self.model),
            every=EVERY_FRAME if self.every is None else str(self.every),
            score_threshold=self.score_threshold,
            steps=self.steps,
            reuse_backbone=self.reuse_backbone,
            frames_fps=str(exact_rate("frames_fps", self.frames_fps)),
            detections=self.detections,
        )

    def worker_options(self, settings: Settings) -> WorkerOptions:
        """What each worker opens; a path is taken from here, so that it means the same elsewhere."""
        return WorkerOptions(
            settings=settings,
            model=str(self.model.absolute() if self.model.exists() else self.model),
            backend=cast(BackendName, self.backend),
            loop=cast("Loop | None", self.loop),
            device=self.device,
            threads=self._threads,
            clips_a_call=self.clips_a_call,
            scratch=self.scratch,
        )

    @contextlib.contextmanager
    def held(self, output: Output) -> Iterator[None]:
        """Keeps other processes from running the same videos into the same folder.

        Raises:
            StepError: one does.
        """
        shard = self.shard
        name = "whole" if shard is None else f"{shard.index}-of-{shard.count}"
        with sole_writer(output.folder / ".running" / name):
            yield

    def find(self, output: Output, reporter: Reporter) -> tuple[list[Video], Known]:
        """The videos of this run, done or not, and what is known of them.

        Raises:
            StepError: see `list_videos`.
        """
        found = list_videos(self.sources, say=reporter.note)
        if self.retry_failed:
            count = forget_failures(output)
            reporter.note(f"{count} videos that failed or were set aside are done again")
        known = fold(output)
        videos = name_videos(found, known.names)
        return (videos if self.shard is None else self.shard.take(videos)), known

    def run(self, videos: list[Video], output: Output, options: WorkerOptions) -> Iterator[VideoRecord]:
        """Runs videos; gives their records as they are settled."""
        make = ProcessMaker(options)
        if self.shard is None:
            gpus = None if self.device == "auto" else int(self.device.startswith("cuda"))
            ray = RayOptions(address=self.address, workers=self.workers, gpus=gpus, cpus=self._threads or 1)
            return run_on_ray(videos, output, make, ray, detections=self.detections)
        workers = min(self.workers or self._workers_here, len(videos))
        return run_here(videos, output, make, workers=workers, detections=self.detections)

    @property
    def _on_gpu(self) -> bool:
        return self.device.startswith("cuda") or (self.device == "auto" and cuda_driver_is_present())

    @property
    def _threads(self) -> int | None:
        """One for each worker on CPUs, which is fastest for many videos; a GPU's library knows best."""
        return self.threads or (None if self._on_gpu else 1)

    @property
    def _workers_here(self) -> int:
        return 1 if self._on_gpu else max(1, available_cpus() // (self._threads or 1))


def left_to_do(videos: list[Video], known: Known) -> list[Video]:
    """What is not settled; those that were under way when a run was killed come last, should one be at fault."""
    left = [video for video in videos if video.name not in known.settled]
    return sorted(left, key=lambda video: video.name in known.begun)
