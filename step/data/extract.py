"""Extracts videos to JPEG frames, a folder a second, without an ffmpeg binary (torch-free).

A frame belongs to the second in which it is shown. Frames are 360 pixels high, as the release has them, in the quality
of ffmpeg's `-q:v 4`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from step.data.frame_store import FrameIndex, frame_file, is_complete, read_index, second_folder, write_index
from step.data.stored_image import encode_jpeg
from step.errors import StepError
from step.files.atomic import atomic_path
from step.video_stream import DecodedFrame, VideoStream


@dataclass(frozen=True)
class Extracted:
    """Reports what became of one video.

    Attributes:
        video: its name.
        seconds: that are there now, of those wanted.
        written: seconds that were written now; the others were there already.
        frames: in those seconds.
        absent: wanted seconds that the video has not, since they lie in a gap of it or beyond it.
        notes: what was chosen, skipped or bounded in reading it, a line each.
    """

    video: str
    seconds: int
    written: int
    frames: int
    absent: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def extract(path: Path, root: Path, *, name: str | None = None, seconds: frozenset[int] | None = None) -> Extracted:
    """Extracts one video; seconds that are there and whole are left as they are.

    Args:
        path: the video.
        root: folder of the frames; the video gets a folder in it.
        name: of that folder; None for the file's name without suffix.
        seconds: which to extract; None for all.

    Raises:
        StepError: not a video, damaged, or nowhere to write. Seconds beyond the video's end are none of its.
    """
    name = name if name is not None else path.stem
    index = read_index(root, name)
    source_bytes = path.stat().st_size if path.is_file() else 0
    if index.source_bytes != source_bytes:
        index = FrameIndex(source_bytes=source_bytes)  # another video: nothing of the old one counts
    present = {s: n for s, n in index.counts.items() if is_complete(second_folder(root, name, s), n)}
    wanted = _wanted(seconds, index)
    written = 0
    notes: list[str] = []
    if wanted is None or not wanted <= frozenset(present):
        missing = None if wanted is None else wanted - frozenset(present)
        last = -1
        expected = min(missing) if missing else 0  # the next second, if there is no gap
        for second, frames in _decode_seconds(path, missing, notes):
            if second > expected:
                index = _with_gap(index, (expected, second - 1))
                write_index(root, name, index)
            last, expected = second, second + 1
            if missing is not None and second not in missing:
                continue
            if present.get(second) != len(frames):
                _write_second(second_folder(root, name, second), frames)
                written += 1
            present[second] = len(frames)
            index = replace(index, counts={**index.counts, second: len(frames)})
            write_index(root, name, index)
        if missing is None or last < max(missing):  # the end was seen, or all that was asked for lies beyond it
            last = last if last >= 0 else _last_second(path)
            index = replace(index, last_second=last, is_whole=index.is_whole or wanted is None)
            write_index(root, name, index)
    asked, wanted = seconds, _wanted(seconds, index)
    lost = sorted(wanted - frozenset(present)) if wanted is not None else []
    if lost:
        raise StepError(f"{path}: has no second {lost[0]}, or it is damaged ({len(lost)} of the wanted seconds)")
    counts = [count for second, count in present.items() if wanted is None or second in wanted]
    return Extracted(
        video=name,
        seconds=len(counts),
        written=written,
        frames=sum(counts),
        absent=frozenset() if asked is None or wanted is None else asked - wanted,
        notes=tuple(notes),
    )


def _wanted(seconds: frozenset[int] | None, index: FrameIndex) -> frozenset[int] | None:
    """Keeps the wanted seconds that the video has, as far as that is known; None stands for all that it has."""
    if seconds is None:
        return frozenset(index.counts) if index.is_whole else None
    last = index.last_second
    within = (second for second in seconds if second >= 0 and (last is None or second <= last))
    return frozenset(second for second in within if index.gap_at(second) is None)


def _with_gap(index: FrameIndex, gap: tuple[int, int]) -> FrameIndex:
    """Returns the index with one more gap; those that touch become one."""
    gaps: list[tuple[int, int]] = []
    for first, last in sorted({*index.gaps, gap}):
        if gaps and first <= gaps[-1][1] + 1:
            gaps[-1] = (gaps[-1][0], max(gaps[-1][1], last))
        else:
            gaps.append((first, last))
    return replace(index, gaps=tuple(gaps))


def _last_second(path: Path) -> int:
    with VideoStream(str(path)) as stream:
        return max((int(frame.time_s) for frame in stream.decode()), default=-1)


def _write_second(target: Path, frames: list[DecodedFrame]) -> None:
    with atomic_path(target) as folder:
        folder.mkdir()
        for index, frame in enumerate(frames):
            frame_file(folder, index).write_bytes(encode_jpeg(frame.picture))


def _decode_seconds(
    path: Path, seconds: frozenset[int] | None, notes: list[str]
) -> Iterator[tuple[int, list[DecodedFrame]]]:
    """Yields the frames of each wanted second, in order, and other seconds on the way, without their frames.

    Raises:
        StepError: the video cannot be read, breaks off, or lacks many frames.
    """
    import av

    current, frames, count = -1, list[DecodedFrame](), 0
    with VideoStream(str(path), say=notes.append) as stream:
        start_s = None if not seconds else Fraction(min(seconds))
        try:
            for frame in stream.decode(start_s=start_s):
                count += 1
                second = int(frame.time_s)
                if second != current:
                    if current >= 0:
                        yield current, frames
                    current, frames = second, []
                    if seconds is not None and second > max(seconds):
                        yield current, frames  # so that it is known that the video goes on
                        return
                if seconds is None or second in seconds:
                    frames.append(frame)
        except av.FFmpegError as error:
            raise StepError(f"{path}: broke in second {current} ({error.strerror}); it is damaged") from error
        if current >= 0:
            yield current, frames
        if not count and start_s is None:
            raise StepError(f"{path}: no frame could be decoded; the file is empty or damaged")
        if stream.problem is not None:
            raise StepError(f"{path}: {stream.problem}")
