"""`step-data prepare|extract|check|toy` makes AVA's annotations and videos ready."""

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from step.cli import OneLineCommand, OneLineGroup
from step.data.check import check, some
from step.data.extract import Extracted, extract
from step.data.frame_store import CLIP_PARTS
from step.data.prepare import prepare
from step.data.toy.toy import generate
from step.data.videos import videos_by_name
from step.errors import StepError
from step.evaluation.ava_csv import read_boxes
from step.parent import end_with_parent
from step.shown import make_console

_PATH = click.Path(path_type=Path)
_SEEDS = 2**32


@click.group(cls=OneLineGroup)
def main() -> None:
    """Prepares AVA and data sets of its form."""


@main.command("prepare", cls=OneLineCommand)
@click.argument("truth", type=_PATH)
@click.option("-o", "--output", required=True, type=_PATH, help="The csv to write.")
@click.option("--label-map", type=_PATH, help="pbtxt of the classes to keep.  [default: all]")
@click.option("--exclude", type=_PATH, help="csv of key frames (video,second) to leave out.")
def prepare_command(truth: Path, output: Path, label_map: Path | None, exclude: Path | None) -> None:
    """Writes the ground truth of TRUTH, AVA's csv of any version, sorted, checked and in one form."""
    done = prepare(truth, output, label_map=label_map, exclude=exclude)
    console = make_console(highlight=False, soft_wrap=True)
    console.print(f"{output}: {done.rows} boxes in {done.key_frames} key frames of {done.videos} videos", markup=False)
    for reason, count in done.dropped.items():
        console.print(f"dropped {count} rows that {'are ' * (not reason.startswith('repeat'))}{reason}", markup=False)
    for note in done.notes:
        console.print(note, markup=False)


@main.command("extract", cls=OneLineCommand, context_settings={"show_default": True})
@click.argument("videos", type=_PATH, nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=_PATH, help="Folder for the frames.")
@click.option("--truth", type=_PATH, help="Extract only what the clips of this csv need.  [default: everything]")
@click.option("--workers", type=int, default=os.cpu_count() or 1, help="Videos at a time.")
def extract_command(videos: tuple[Path, ...], output: Path, truth: Path | None, workers: int) -> None:
    """Extracts VIDEOS (files, or folders of them) to JPEG frames of 360 rows, a folder a second.

    What is there and whole is left as it is, so an interrupted extraction goes on where it ended.
    """
    if workers < 1:
        raise StepError(f"--workers is {workers}; it must be at least 1")
    console = make_console(highlight=False, soft_wrap=True)

    def note(line: str) -> None:
        console.print(line, markup=False)

    files = videos_by_name(videos, say=note)
    key_frames = None if truth is None else _key_frames(truth)
    seconds = None if key_frames is None else {video: _clip_seconds(of) for video, of in key_frames.items()}
    if seconds is not None:
        absent = sorted(set(seconds) - set(files))
        if absent:
            raise StepError(
                f"{truth}: video {absent[0]!r} is not among VIDEOS ({len(absent)} of {len(seconds)} are not)"
            )
        files = {name: path for name, path in files.items() if name in seconds}
    results = _extract_all(files, output, seconds, workers)
    frames, written = sum(done.frames for done in results), sum(done.written for done in results)
    there = sum(done.seconds for done in results) - written
    for line in (line for done in results for line in done.notes):
        note(line)
    if key_frames is not None:
        for line in _without_frames(results, key_frames):
            note(line)
    note(f"{output}: {frames} frames of {len(results)} videos; {written} seconds written, {there} were there")


@main.command("check", cls=OneLineCommand)
@click.argument("truth", type=_PATH)
@click.option("--frames", type=_PATH, help="Folder of the extracted frames.")
@click.option("--label-map", type=_PATH, help="pbtxt of the classes that there may be.")
def check_command(truth: Path, frames: Path | None, label_map: Path | None) -> None:
    """Looks for what is missing or wrong in the ground truth TRUTH and in the frames that its clips need."""
    console = make_console(highlight=False, soft_wrap=True)
    with console.status("reading") as status:
        problems = list(check(truth, frames, label_map=label_map, progress=lambda video: status.update(escape(video))))
    for problem in problems:
        console.print(f"{problem.where}: {problem.text}", markup=False)
    if problems:
        raise StepError(f"{truth}: {len(problems)} problems were found; they are listed above")
    console.print(f"{truth}: nothing is wrong", markup=False)


@main.command("toy", cls=OneLineCommand, context_settings={"show_default": True})
@click.argument("folder", type=_PATH)
@click.option("--train", type=int, default=60, help="Training videos.")
@click.option("--val", type=int, default=20, help="Validation videos.")
@click.option("--seed", type=int, default=0, help="Another seed gives another data set; the same gives the same.")
def toy_command(folder: Path, train: int, val: int, seed: int) -> None:
    """Draws a small data set in AVA's form in FOLDER: figures that stand, walk, run, jump, wave, hug and give."""
    if not 0 <= seed < _SEEDS:
        raise StepError(f"--seed is {seed}; it must be 0 to {_SEEDS - 1}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("videos")
        counts = {"train": train, "val": val}
        generate(
            folder, videos=counts, seed=seed, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    make_console(highlight=False, soft_wrap=True).print(
        f"{folder}: {train} training and {val} validation videos", markup=False
    )


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
    files: dict[str, Path], output: Path, seconds: dict[str, frozenset[int]] | None, workers: int
) -> list[Extracted]:
    """Extracts in processes, a video each; the first failure ends it, and what was extracted stays."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    pool = ProcessPoolExecutor(
        min(workers, len(files)),
        mp_context=get_context("spawn"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("videos", total=len(files))

        def advance(_done: Future[Extracted]) -> None:
            bar.advance(task)

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
