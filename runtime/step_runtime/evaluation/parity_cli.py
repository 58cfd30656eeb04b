"""`step-eval parity` shows the mAP of every configuration of a model beside PyTorch's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click

from step.bundles.graph_spec import PRECISIONS, Precision
from step.bundles.manifest import Manifest, Thresholds, read_bundle
from step.checkpoints.toy_model import model_name
from step.cli import OneLineCommand, examples, find_reporter, takes
from step.errors import StepError
from step.parameters import BundlePath, Choice, FilePath, ListOf, Number, Whole
from step_runtime.backends.base import Loop
from step_runtime.backends.select import BACKENDS, LOOPS, BackendName
from step_runtime.evaluation.map_parity import (
    DEFAULT_TOLERANCES,
    MapTolerance,
    ParityConfiguration,
    compare_map,
    find_configurations,
)
from step_runtime.evaluation.open_data import open_data
from step_runtime.evaluation.tables import map_parity_table


@dataclass(frozen=True)
class ParityCommand:
    """Holds what was typed; see `step-eval parity --help`."""

    bundles: tuple[Path, ...]
    checkpoint: Path
    data: Path
    split: str
    backends: tuple[str, ...]
    loops: tuple[str, ...]
    precisions: tuple[str, ...] | None
    steps: tuple[int, ...] | None
    device: str
    tolerance: float | None
    class_tolerance: float | None

    def configurations(self, manifests: Sequence[Manifest]) -> list[ParityConfiguration]:
        """Returns what is compared, PyTorch first.

        Args:
            manifests: the bundles'.
        """
        precisions = self.precisions or tuple(manifest.precision for manifest in manifests)
        return find_configurations(
            list(self.bundles),
            self.checkpoint,
            backends=cast(list[BackendName], list(dict.fromkeys(self.backends))),
            loops=cast(list[Loop], list(dict.fromkeys(self.loops))),
            precisions=cast(list[Precision], list(dict.fromkeys(precisions))),
        )

    def chosen_steps(self, manifests: Sequence[Manifest]) -> list[int]:
        """Returns the numbers of the steps to score after, in order.

        Args:
            manifests: the bundles'.

        Raises:
            StepError: a step that a bundle does not have, or a fused graph, which gives the last step, without it.
        """
        last = min(manifest.num_steps for manifest in manifests)
        steps = sorted(set(self.steps or range(1, last + 1)))
        if steps[-1] > last:
            raise StepError(f"--steps has {steps[-1]}; the bundles have steps 1 to {last}")
        if "fused" in self.loops and steps[-1] != last:
            given = ",".join(map(str, steps))
            raise StepError(f"--steps is {given}; a fused graph gives step {last} only: add it, or give --loops steps")
        return steps

    @property
    def tolerances(self) -> dict[Precision, MapTolerance]:
        """Returns the largest differences, by precision."""
        return {
            precision: MapTolerance(
                default.mean if self.tolerance is None else self.tolerance,
                default.per_class if self.class_tolerance is None else self.class_tolerance,
            )
            for precision, default in DEFAULT_TOLERANCES.items()
        }


def _defaults(name: str) -> str:
    """Words the default tolerances of all precisions."""
    return ", ".join(f"{getattr(default, name):g} for {precision}" for precision, default in DEFAULT_TOLERANCES.items())


@click.command(
    cls=OneLineCommand,
    epilog=examples(
        "step-eval parity build/fp32 --checkpoint model.pth --data ava",
        "step-eval parity build/fp32 build/fp16 --checkpoint model.pth --data ava --backends onnxruntime,openvino",
        "step-eval parity build/toy --checkpoint toy --data toy --loops fused --steps 3",
    ),
)
@click.argument("bundles", type=BundlePath(), nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--checkpoint", required=True, type=FilePath(), help="The .pth that was exported.")
@click.option("--data", required=True, type=FilePath(), help="Folder with SPLIT.csv and frames or videos, or toy.")
@click.option("--split", default="val", show_default=True, help="Which csv of --data.")
@click.option(
    "--backends",
    type=ListOf(Choice(BACKENDS)),
    default="onnxruntime",
    show_default=True,
    metavar="NAME,...",
    help="Beside PyTorch.",
)
@click.option(
    "--loops",
    type=ListOf(Choice(LOOPS)),
    default="fused,steps",
    show_default=True,
    metavar="NAME,...",
    help="Which graphs.",
)
@click.option(
    "--precisions",
    type=ListOf(Choice(PRECISIONS)),
    metavar="NAME,...",
    help="Of the bundles.  [default: all that they have]",
)
@click.option(
    "--steps", type=ListOf(Whole(1)), metavar="N,...", help="Progressive steps to score after.  [default: each]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--tolerance", type=Number(least=0), help=f"Of the mAP.  [default: {_defaults('mean')}]")
@click.option(
    "--class-tolerance",
    type=Number(least=0),
    help=f"Of a class's average precision.  [default: {_defaults('per_class')}]",
)
@takes(ParityCommand)
def parity(command: ParityCommand) -> None:
    """Compares the mAP of BUNDLEs, in every configuration, with PyTorch's; exit code 1 beyond the tolerance."""
    manifests = [read_bundle(bundle) for bundle in command.bundles]
    thresholds = _common_thresholds(command.bundles, manifests)
    configurations, steps = command.configurations(manifests), command.chosen_steps(manifests)
    reporter = find_reporter()
    folder = open_data(command.data, command.split, reporter)
    with reporter.progress("starting", unit="key frames") as progress:

        def show(configuration: ParityConfiguration, done: int, total: int) -> None:
            progress.update(done, total, description=configuration.name)

        rows = compare_map(
            configurations, folder, steps=steps, thresholds=thresholds, device=command.device, progress=show
        )
    reporter.result(map_parity_table(rows, command.tolerances))
    for row in rows:
        if row.problem is not None:
            reporter.result(f"{row.configuration.name}: {row.problem}")
    failed = [row.configuration.name for row in rows if not row.passed(command.tolerances)]
    if failed:
        raise StepError(f"{len(failed)} of {len(rows)} configurations do not give PyTorch's mAP: {', '.join(failed)}")


def _common_thresholds(bundles: Sequence[Path], manifests: Sequence[Manifest]) -> Thresholds:
    """Returns the thresholds that all bundles were exported with; PyTorch detects with them, too."""
    for bundle, manifest in zip(bundles, manifests, strict=True):
        if manifest.thresholds != manifests[0].thresholds:
            raise StepError(
                f"{model_name(bundle)}: its thresholds ({_shown(manifest.thresholds)}) are not those of "
                f"{model_name(bundles[0])} ({_shown(manifests[0].thresholds)}); compare bundles that were exported "
                "with the same"
            )
    return manifests[0].thresholds


def _shown(thresholds: Thresholds) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in thresholds.model_dump().items())
