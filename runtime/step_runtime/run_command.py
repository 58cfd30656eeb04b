"""What `step-run` was told: checked, and made into what is run and where its results go."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import click

from step.arguments import exact_rate
from step.bundles.manifest import no_such_model
from step.checkpoints.toy_model import NAME, find_bundle
from step.data.toy.toy_cache import toy_demo_video
from step.errors import StepError
from step.files.atomic import check_writable
from step.pages.page import check_packages
from step.reporter import Reporter
from step_runtime.backends.select import check_device
from step_runtime.clips.feature_windows import groups_between_keys
from step_runtime.outputs.run_source import RunOptions, check_free, check_place
from step_runtime.sources.live import LiveOptions
from step_runtime.sources.open import expand, find_sources, source_names


@dataclass(frozen=True)
class RunPlace:
    """A source, what results call it, and the folder that they go to."""

    location: str | Path
    name: str
    folder: Path


@dataclass(frozen=True)
class RunCommand:
    """What was typed; see `step-run --help`."""

    sources: tuple[str, ...]
    model: Path | None
    demo: bool
    out: Path | None
    overwrite: bool
    every: Fraction | None
    backend: str
    loop: str | None
    steps: int | None
    reuse_backbone: bool
    device: str
    threads: int | None
    score_threshold: float
    frames_fps: float
    overlay: bool
    html: bool
    stall_timeout: float
    reconnect: bool
    trace_file: Path | None

    @property
    def exact_frames_fps(self) -> Fraction:
        """Frames per second of a folder of frames: 29.97 is 30000/1001."""
        return exact_rate("frames_fps", self.frames_fps)

    def check(self) -> None:
        """Refuses what needs neither the model nor the source to be refused.

        Raises:
            StepError: options that exclude each other, no such model or device, or a trace that cannot be written.
        """
        if self.demo and self.sources:
            raise click.UsageError(
                f"--demo with SOURCE {self.sources[0]}; it brings its own video, leave one of them out"
            )
        if not self.demo and not self.sources:
            raise click.UsageError("Missing argument SOURCE; give a video, or --demo")
        if not self.demo and self.model is None:
            raise click.UsageError(f"Missing option --model; give a bundle, or {NAME}, the small model in the package")
        check_device(self.device)
        if self.html:
            check_packages()
        if self.trace_file is not None:
            check_writable(self.trace_file)
        if self.reuse_backbone and self.loop == "fused":
            raise StepError("--reuse-backbone with --loop fused, whose one graph cannot be cut; leave --loop out")
        if self.reuse_backbone:
            groups_between_keys(self.every)
        if self.model is not None and not find_bundle(self.model).exists():
            raise no_such_model(self.model)

    @property
    def chosen_model(self) -> Path:
        """The model, which --demo has one of."""
        return self.model or Path(NAME)

    @property
    def may_overwrite(self) -> bool:
        """Whether an earlier run may be replaced, as the demo's own may."""
        return self.overwrite or (self.demo and self.out is None)

    def find(self, reporter: Reporter) -> list[RunPlace]:
        """Finds every source, and where its results go.

        Args:
            reporter: says what is left out of a folder.

        Raises:
            StepError: a source is missing, or a folder holds the results of another run.
        """
        given = [str(toy_demo_video())] if self.demo else [each for source in self.sources for each in expand(source)]
        locations = [
            location
            for each in given
            for location in find_sources(each, frames_fps=self.exact_frames_fps, say=reporter.note)
        ]
        root = self.out or Path("runs")
        names = source_names(locations)
        if self.demo:
            places = [RunPlace(locations[0], "demo", self.out or root / "demo")]
        elif len(locations) == 1:
            places = [RunPlace(locations[0], names[0], self.out or root / source_names(given)[0])]
        else:
            folder = root / source_names(given)[0] if self.out is None and len(given) == 1 else root
            places = [RunPlace(location, name, folder / name) for location, name in zip(locations, names, strict=True)]
        for place in places:
            check_place(place.folder)
            if not self.may_overwrite:
                check_free(place.folder)
        return places

    def run_options(self, reporter: Reporter) -> RunOptions:
        """How each source is run.

        Args:
            reporter: says what becomes of a live source's connection.
        """
        return RunOptions(
            every_s=self.every,
            frames_fps=self.exact_frames_fps,
            score_threshold=self.score_threshold,
            overlay=self.overlay,
            reuse_backbone=self.reuse_backbone,
            overwrite=self.may_overwrite,
            live=LiveOptions(stall_timeout_s=self.stall_timeout, reconnect=self.reconnect, say=reporter.note),
        )
