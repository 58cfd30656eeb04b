"""`step-batch SOURCES... --model BUNDLE -o OUT`."""

import contextlib
import re
import sys
import time
from collections.abc import Iterator

import click

from step.checkpoints.toy_model import NAME, WHAT_IT_KNOWS, is_packaged
from step.cli import OneLineCommand, examples, find_reporter, print_error, takes
from step.parameters import Choice, FilePath, Number, OrWord, Seconds, Whole
from step.reporter import Reporter
from step_runtime.backends.select import BACKENDS, MOST_THREADS
from step_runtime.batch.command import BatchCommand, left_to_do
from step_runtime.batch.manifest import fold
from step_runtime.batch.output import Output
from step_runtime.batch.progress import BatchCounts
from step_runtime.batch.records import VideoRecord
from step_runtime.batch.shards import Shard
from step_runtime.clips.key_frame import DEFAULT_SCORE_THRESHOLD
from step_runtime.sources.frame_folder import FASTEST_FPS

_FOLD_EVERY_S = 60.0
_FOLD_SHARE = 0.05  # of the time, at most
_REASONS_SHOWN = 3


def _parse_shard(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Shard | None:
    if value is not None and not re.fullmatch(r"\d+/\d+", value, re.ASCII):
        raise click.BadParameter(f"{value!r} is not INDEX/COUNT, such as 0/8")
    return None if value is None else Shard.parse(value)


@click.command(
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-batch videos --model bundle -o out",
        "step-batch 's3://bucket/2026/*.mp4' --model bundle -o out --address auto --device cuda",
        "step-batch list.txt --model bundle -o out --shard 3/8",
    ),
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--model",
    type=FilePath(),
    required=True,
    help=f"Bundle (or, with torch, a .pth), or {NAME}.",
)
@click.option("-o", "--out", type=FilePath(), required=True, help="Folder for the results.")
@click.option("--workers", type=Whole(1), help="Detectors at a time.  [default: one for each GPU, or else CPU]")
@click.option(
    "--address", help="Of a Ray cluster, such as auto or HOST:6379.  [default: Ray on this machine, for this run]"
)
@click.option(
    "--shard",
    callback=_parse_shard,
    metavar="INDEX/COUNT",
    help="Only this part, from 0/COUNT to COUNT-1/COUNT, and without Ray: for array jobs.",
)
@click.option("--retry-failed", is_flag=True, help="Do again what failed or was set aside.")
@click.option(
    "--every",
    type=OrWord(Seconds(), "frame"),
    default="1.0",
    metavar="SECONDS|frame",
    help="Time between key frames; frame: every source frame.",
)
@click.option(
    "--score-threshold",
    type=Number(least=0, below=1),
    default=DEFAULT_SCORE_THRESHOLD,
    help="Of people in the tables.",
)
@click.option(
    "--detections/--no-detections", default=True, help="Keep every detection beside the people, which step-eval reads."
)
@click.option("--steps", type=Whole(1), help="Stop after this many progressive steps.  [default: all]")
@click.option("--reuse-backbone/--no-reuse-backbone", default=False, help="See step-run.")
@click.option("--clips-a-call", type=Whole(1), default=1, help="Clips that the model takes at a time.")
@click.option("--backend", type=Choice(BACKENDS), default="auto", help="What runs the model.")
@click.option("--loop", type=Choice(["fused", "steps"]), help="Which graphs.  [default: fused where it can]")
@click.option("--device", default="auto", help="auto, cpu or cuda; with --shard cuda:N too.")
@click.option(
    "--threads",
    type=Whole(1, MOST_THREADS),
    help="CPU threads of each worker.  [default: 1, on a GPU the library's choice]",
)
@click.option(
    "--frames-fps",
    type=Number(above=0, most=FASTEST_FPS),
    default=30.0,
    help="Frames per second of folders of frames in a list.",
)
@click.option(
    "--scratch",
    type=FilePath(),
    help="Folder for videos while they are fetched.  [default: the system's]",
)
@takes(BatchCommand)
def main(command: BatchCommand) -> None:
    """Runs a model over an archive: each SOURCE is a folder, a list (.txt), a file, a pattern, or a URL of these.

    Writes for each video a table of people (Parquet), one of every detection, and a row of manifest.parquet. Started
    again, it does what is not done. Videos are rows of a Ray Data pipeline, here or on a cluster; --shard needs no Ray.
    """
    reporter = find_reporter()
    command.check()
    output = Output(command.out)
    settings = command.settings()
    output.prepare(str(command.model), settings)
    with command.held(output):
        videos, known = command.find(output, reporter)
        left = left_to_do(videos, known)
        if is_packaged(command.model):
            reporter.note(WHAT_IT_KNOWS)
        if len(left) < len(videos):
            reporter.note(f"{len(videos) - len(left)} of {len(videos)} videos are done already")
        counts = BatchCounts()
        problems: list[str] = []
        interrupted = False
        try:
            if left:
                records = command.run(left, output, command.worker_options(settings))
                _follow(records, output, counts, problems, total=len(left), reporter=reporter)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            fold(output)
    reporter.result(counts.summary() if left else "nothing is left to do")
    reporter.result(f"results: {output.manifest}")
    if interrupted:
        print_error("interrupted; what was done is kept, the same command goes on")
        sys.exit(130)
    for problem in problems[:_REASONS_SHOWN]:
        reporter.note(problem)
    if counts.failed:
        print_error(
            f"{counts.failed} of {counts.videos} videos failed or were set aside; {output.manifest} says why, and "
            "--retry-failed does them again"
        )
        sys.exit(1)


def _follow(
    records: Iterator[VideoRecord],
    output: Output,
    counts: BatchCounts,
    problems: list[str],
    *,
    total: int,
    reporter: Reporter,
) -> None:
    """Counts what is settled, and brings the manifest up to date now and then."""
    next_fold_s = time.monotonic() + _FOLD_EVERY_S
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(reporter.progress("archive", total, "videos"))
        stack.callback(getattr(records, "close", lambda: None))
        for record in records:
            counts.add(record)
            counts.show(progress)
            if record.reason is not None:
                reporter.detail(f"{record.name}: {record.status}: {record.reason}")
                if len(problems) < _REASONS_SHOWN:
                    problems.append(f"{record.name}: {record.status}: {record.reason}")
            if time.monotonic() > next_fold_s:
                began_s = time.monotonic()
                fold(output)
                took_s = time.monotonic() - began_s
                next_fold_s = time.monotonic() + max(_FOLD_EVERY_S, took_s / _FOLD_SHARE)


if __name__ == "__main__":
    main()
