"""`step-data prepare|extract|check|toy` makes AVA's annotations and videos ready."""

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import click

from step.cli import OneLineCommand, OneLineGroup, examples, find_reporter
from step.cpus import available_cpus
from step.data.check import check, some
from step.data.extract import Extracted, extract
from step.data.frame_store import CLIP_PARTS
from step.data.prepare import prepare
from step.data.toy.toy import generate
from step.data.videos import videos_by_name
from step.errors import StepError
from step.evaluation.ava_csv import read_boxes
from step.parameters import FilePath, Whole
from step.parent import end_with_parent
from step.reporter import Reporter
from step.shown import counted

_PATH = FilePath()
_LARGEST_SEED = 2**32 - 1


@click.group(
    cls=OneLineGroup,
    epilog=examples(
        "step-data toy build/toy",
        "step-data prepare ava_val_v2.2.csv -o ava/val.csv --label-map ava_action_list_v2.2.pbtxt",
        "step-data extract videos -o ava/frames --truth ava/val.csv",
        "step-data check ava/val.csv --frames ava/frames",
    ),
)
def main() -> None:
    """Prepares AVA and data sets of its form."""


@main.command(
    "prepare",
    cls=OneLineCommand,
    epilog=examples(
        "step-data prepare ava_train_v2.2.csv -o ava/train.csv",
        "step-data prepare ava_val_v2.2.csv -o ava/val.csv --label-map ava_action_list_v2.2.pbtxt",
    ),
)
@click.argument("truth", type=_PATH)
@click.option("-o", "--output", required=True, type=_PATH, help="The csv to write.")
@click.option("--label-map", type=_PATH, help="pbtxt of the classes to keep.  [default: all]")
@click.option("--exclude", type=_PATH, help="csv of key frames (video,second) to leave out.")
def prepare_command(truth: Path, output: Path, label_map: Path | None, exclude: Path | None) -> None:
    """Writes the ground truth of TRUTH, AVA's csv of any version, sorted, checked and in one form."""
    done = prepare(truth, output, label_map=label_map, exclude=exclude)
    reporter = find_reporter()
    for reason, count in done.dropped.items():
        reporter.note(f"dropped {count} rows that {'are ' * (not reason.startswith('repeat'))}{reason}")
    for note in done.notes:
        reporter.note(note)
    counts = (counted(done.rows, "box", "boxes"), counted(done.key_frames, "key frame"), counted(done.videos, "video"))
    reporter.result(f"{output}: {counts[0]} in {counts[1]} of {counts[2]}")


@main.command(
    "extract",
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples(
        "step-data extract videos -o ava/frames --truth ava/val.csv",
        "step-data extract first.mp4 second.mp4 -o frames --workers 1",
    ),
)
@click.argument("videos", type=_PATH, nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=_PATH, help="Folder for the frames.")
@click.option("--truth", type=_PATH, help="Extract only what the clips of this csv need.  [default: everything]")
@click.option("--workers", type=Whole(1), default=available_cpus(), help="Videos at a time.")
def extract_command(videos: tuple[Path, ...], output: Path, truth: Path | None, workers: int) -> None:
    """Extracts VIDEOS (files, or folders of them) to JPEG frames of 360 rows, a folder a second.

    What is there and whole is left as it is, so an interrupted extraction goes on where it ended.
    """
    reporter = find_reporter()
    files = videos_by_name(videos, say=reporter.note)
    key_frames = None if truth is None else _key_frames(truth)
    seconds = None if key_frames is None else {video: _clip_seconds(of) for video, of in key_frames.items()}
    if seconds is not None:
        absent = sorted(set(seconds) - set(files))
        if absent:
            raise StepError(
                f"{truth}: video {absent[0]!r} is not among VIDEOS ({len(absent)} of {len(seconds)} are not)"
            )
        files = {name: path for name, path in files.items() if name in seconds}
    results = _extract_all(files, output, seconds, workers, reporter)
    frames, written = sum(done.frames for done in results), sum(done.written for done in results)
    there = sum(done.seconds for done in results) - written
    for line in (line for done in results for line in done.notes):
        reporter.note(line)
    if key_frames is not None:
        for line in _without_frames(results, key_frames):
            reporter.note(line)
    reporter.result(
        f"{output}: {frames} frames of {len(results)} videos; {written} seconds written, {there} were there"
    )


@main.command(
    "check",
    cls=OneLineCommand,
    epilog=examples(
        "step-data check ava/val.csv",
        "step-data check ava/val.csv --frames ava/frames --label-map ava_action_list_v2.2.pbtxt",
    ),
)
@click.argument("truth", type=_PATH)
@click.option("--frames", type=_PATH, help="Folder of the extracted frames.")
@click.option("--label-map", type=_PATH, help="pbtxt of the classes that there may be.")
def check_command(truth: Path, frames: Path | None, label_map: Path | None) -> None:
    """Looks for what is missing or wrong in the ground truth TRUTH and in the frames that its clips need."""
    reporter = find_reporter()
    with reporter.progress("reading", unit="videos") as progress:

        def show(video: str) -> None:
            progress.advance()
            progress.update(status=video)

        problems = list(check(truth, frames, label_map=label_map, progress=show))
    for problem in problems:
        reporter.result(f"{problem.where}: {problem.text}")
    if frames is None:
        reporter.note("not checked: whether every clip's frames are there and whole; that needs --frames FOLDER")
    if label_map is None:
        reporter.note("not checked: whether its classes are the data set's; that needs --label-map FILE")
    if problems:
        raise StepError(f"{truth}: {counted(len(problems), 'problem')} found, listed above")
    reporter.result(f"{truth}: nothing is wrong" + (" in the table" if frames is None else ""))


@main.command(
    "toy",
    cls=OneLineCommand,
    context_settings={"show_default": True},
    epilog=examples("step-data toy build/toy", "step-data toy build/tiny --train 4 --val 2 --seed 7"),
)
@click.argument("folder", type=_PATH)
@click.option("--train", type=Whole(1), default=60, help="Training videos.")
@click.option("--val", type=Whole(1), default=20, help="Validation videos.")
@click.option(
    "--seed",
    type=Whole(0, _LARGEST_SEED),
    default=0,
    help="Another seed gives another data set; the same gives the same.",
)
def toy_command(folder: Path, train: int, val: int, seed: int) -> None:
    """Draws a small data set in AVA's form in FOLDER: figures that stand, walk, run, jump, wave, hug and give."""
    reporter = find_reporter()
    with reporter.progress("drawing", unit="videos") as progress:
        generate(folder, videos={"train": train, "val": val}, seed=seed, progress=progress.update)
    reporter.result(f"{folder}: {train} training and {val} validation videos")


def _key_frames(truth: Path) -> dict[str, frozenset[int]]:
    table = read_boxes(truth, last="person")
    seconds: dict[str, set[int]] = {video: set() for video in table.videos}
    for video, second in zip(table.video.tolist(), table.second.tolist(), strict=True):
        seconds[table.videos[video]].add(int(second))
    return {video: frozenset(numbers) for video, numbers in seconds.items()}


def _clip_seconds(key_frames: frozenset[int]) -> frozenset[int]:
    return frozenset(second + offset for second in key_frames for offset, _ in CLIP_PARTS)


def _without_frames(results: list[Extracted], key_frames: dict[str, frozenset[int]]) -> Iterator[str]:
    """Yields a line for each video with key frames that it does not show."""
    for done in results:
        absent = sorted(done.absent & key_frames[done.video])
        if absent:
            count = "1 key frame" if len(absent) == 1 else f"{len(absent)} key frames"
            yield (
                f"{done.video}: {count} of --truth without frames (second {some(absent)}): in a gap of the video or "
                "beyond it; step-data check names them"
            )


def _extract_all(
    files: dict[str, Path],
    output: Path,
    seconds: dict[str, frozenset[int]] | None,
    workers: int,
    reporter: Reporter,
) -> list[Extracted]:
    """Extracts in processes, a video each; the first failure ends it, and what was extracted stays."""
    pool = ProcessPoolExecutor(
        min(workers, len(files)),
        mp_context=get_context("spawn"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    with reporter.progress("extracting", total=len(files), unit="videos") as progress:

        def advance(_done: Future[Extracted]) -> None:
            progress.advance()

        futures: list[Future[Extracted]] = []
        try:
            for name, path in files.items():
                wanted = None if seconds is None else seconds[name]
                futures.append(pool.submit(extract, path, output, name=name, seconds=wanted))
                futures[-1].add_done_callback(advance)
            wait(futures, return_when=FIRST_EXCEPTION)
            return [future.result() for future in sorted(futures, key=lambda future: not future.done())]
        finally:
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
