"""`step-verify BUNDLE`."""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from step.bundles.graph_spec import FUSED
from step.bundles.manifest import Manifest, ParityRow, read_bundle
from step.checkpoints.toy_model import find_bundle, model_name
from step.cli import OneLineCommand, examples, find_reporter, takes
from step.errors import StepError
from step.parameters import BundlePath, FilePath, Number, Whole
from step.parity.compare import ComparedModel, NamedClip, compare
from step.parity.runner import GraphRunner
from step.parity.synthetic_clips import verification_clips
from step.progress import Progress
from step_runtime.clips.sample_clips import sample_clips
from step_runtime.verification.graph_runners.open import open_runner
from step_runtime.verification.report import ComparisonReport, Divergence, SearchReport


@dataclass(frozen=True)
class VerifyCommand:
    """What was typed; see `step-verify --help`."""

    bundle: Path
    backends: str | None
    clips: Path | None
    max_clips: int
    checkpoint: Path | None
    json_file: Path | None
    bisect: bool
    bound: float | None
    graph: str | None

    def check(self) -> None:
        """Refuses options that do not go together.

        Raises:
            StepError: which, and what to give instead.
        """
        if not self.bisect and (self.bound is not None or self.graph is not None):
            raise StepError(
                f"--{'graph' if self.bound is None else 'bound'} is for --bisect; add that, or leave it out"
            )


@click.command(
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-verify toy --checkpoint toy",
        "step-verify build/bundle --checkpoint model.pth --clips videos",
        "step-verify build/bundle --backends onnxruntime,tensorrt-rtx --json compared.json",
        "step-verify build/fp16 --bisect --bound 0.02",
    ),
)
@click.argument("bundle", type=BundlePath())
@click.option(
    "--backends",
    metavar="A,B",
    help="Reference and what is judged: onnxruntime, torch, tensorrt, tensorrt-rtx; for fp16 bundles onnxruntime-fp32 "
    "(in float32) and onnxruntime-fp16 (every result rounded to half); with :cuda or :cuda:N behind it, on a GPU.  "
    "[default: torch with --checkpoint, else onnxruntime-fp32; onnxruntime-fp16, of an fp32 bundle onnxruntime]",
)
@click.option("--clips", type=FilePath(), help="Video or folder of videos.  [default: synthetic clips]")
@click.option("--max-clips", type=Whole(1), default=4, help="Clips at most, spread over the videos.")
@click.option("--checkpoint", type=FilePath(), help="What the bundle was exported from; for torch.")
@click.option("--json", "json_file", type=FilePath(), help="Write every comparison to this file.")
@click.option("--bisect", is_flag=True, help="Find the first tensor inside the graphs whose error exceeds --bound.")
@click.option(
    "--bound",
    type=Number(least=0),
    help="With --bisect: largest max|a-b| / max|a|.  [default: ten times that of features, 0.05 in fp16]",
)
@click.option("--graph", help="With --bisect: search this graph.  [default: fused, or each one of the step loop]")
@takes(VerifyCommand)
def main(command: VerifyCommand) -> None:
    """Compares two backends on a bundle graph by graph; exit code 1 where they are further apart than tolerated.

    With --bisect it looks inside the graphs instead, and says what step-export --keep-fp32 has to keep in float32.
    """
    command.check()
    reporter = find_reporter()
    bundle = find_bundle(command.bundle)
    manifest = read_bundle(bundle)
    names = _backend_names(command.backends, manifest, command.checkpoint)
    graphs = _graphs_to_search(command.graph, manifest, bundle)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(reporter.progress("loading", unit="tensors"))
        reference, candidate = (
            stack.enter_context(contextlib.closing(_open(name, bundle, manifest, command.checkpoint))) for name in names
        )
        clips = _clips(command.clips, manifest, command.max_clips)
        report: ComparisonReport | SearchReport
        if command.bisect:
            report = _search(
                reference, candidate, bundle, manifest, clips, graphs=graphs, bound=command.bound, progress=progress
            )
        else:
            report = _compare(reference, candidate, bundle, manifest, clips, progress=progress)
    if command.json_file is not None:
        report.write(command.json_file)
    if isinstance(report, ComparisonReport):
        reporter.result(report.table())
    else:
        reporter.result(report.text(kept=manifest.keep_fp32))
    if not report.passed:
        sys.exit(1)


def _compare(
    reference: GraphRunner,
    candidate: GraphRunner,
    bundle: Path,
    manifest: Manifest,
    clips: Iterator[NamedClip],
    *,
    progress: Progress,
) -> ComparisonReport:
    rows: list[ParityRow] = []
    progress.update(description="comparing")
    for row in compare(reference, candidate, ComparedModel.of(manifest), clips):
        rows.append(row)
        progress.update(len(rows), status=f"{row.graph} on {row.clip}")
    return ComparisonReport(bundle=model_name(bundle), backends=(reference.name, candidate.name), rows=tuple(rows))


def _search(
    reference: GraphRunner,
    candidate: GraphRunner,
    bundle: Path,
    manifest: Manifest,
    clips: Iterator[NamedClip],
    *,
    graphs: list[str],
    bound: float | None,
    progress: Progress,
) -> SearchReport:
    """Searches graphs one after the other, until one holds a tensor beyond the bound."""
    try:
        from step_runtime.verification.bisect import default_bound, find_first
    except ModuleNotFoundError as error:
        raise StepError(f"--bisect needs {error.name}; pip install 'step-trt[export]'") from error
    if bound is None:
        bound = default_bound(reference, candidate)
    held = list(clips)
    found: Divergence | None = None
    for graph in graphs:
        found = find_first(
            reference,
            candidate,
            bundle,
            manifest,
            held,
            graph=graph,
            bound=bound,
            progress=lambda message: progress.update(description=message),
        )
        if found is not None:
            break
    return SearchReport(
        bundle=model_name(bundle),
        backends=(reference.name, candidate.name),
        graphs=tuple(graphs),
        bound=bound,
        first=found,
    )


def _backend_names(given: str | None, manifest: Manifest, checkpoint: Path | None) -> tuple[str, str]:
    """The reference and what is judged."""
    if given is None:
        is_half = manifest.precision == "fp16"
        if checkpoint is None and not is_half:
            raise StepError("an fp32 bundle needs a reference: --checkpoint model.pth for PyTorch, or --backends A,B")
        return (
            "onnxruntime-fp32" if checkpoint is None else "torch",
            "onnxruntime-fp16" if is_half else "onnxruntime",
        )
    names = given.split(",")
    if len(names) != 2 or names[0] == names[1]:
        raise StepError(f"--backends is {given!r}; give two different ones, such as torch,onnxruntime")
    return names[0], names[1]


def _open(name: str, bundle: Path, manifest: Manifest, checkpoint: Path | None) -> GraphRunner:
    runner, _, device = name.partition(":")
    return open_runner(runner, bundle, manifest, checkpoint=checkpoint, device=device or "cpu")


def _graphs_to_search(given: str | None, manifest: Manifest, bundle: Path) -> list[str]:
    if given is None:
        return [FUSED] if FUSED in manifest.graphs else list(manifest.graphs)
    if given not in manifest.graphs:
        raise StepError(f"--graph is {given!r}; {model_name(bundle)} has {', '.join(manifest.graphs)}")
    return [given]


def _clips(location: Path | None, manifest: Manifest, max_clips: int) -> Iterator[NamedClip]:
    batch = manifest.batch or 1
    if location is None:
        return itertools.islice(verification_clips(manifest.config, batches=(batch, batch)), max_clips)
    return sample_clips(location, manifest.config, max_clips=max_clips, batch=batch)


if __name__ == "__main__":
    main()
