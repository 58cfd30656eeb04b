"""Opening a container and the film in it (torch-free)."""

from typing import TYPE_CHECKING

from step.errors import StepError
from step.video.files import check_regular_file, ffmpeg_name, is_url, local_path
from step.video.selection import film_streams

if TYPE_CHECKING:
    import av.container
    import av.video


def open_film(
    location: str, *, shown: str, timeouts_s: tuple[float, float], options: dict[str, str]
) -> "tuple[av.container.InputContainer, list[av.video.VideoStream]]":
    """Opens a file or URL; the other streams are neither read nor, from a playlist, downloaded.

    Args:
        location: path or URL.
        shown: what messages call it.
        timeouts_s: after which opening a URL, and waiting for its next data, are given up.
        options: for FFmpeg's demuxer.

    Returns:
        The container, and its films, of which the first is taken.

    Raises:
        StepError: missing, unreachable, not a video, or without a video stream that can be decoded.
    """
    import av
    from av.stream import Discard

    name, hint = location, "check that it is reachable"
    if not is_url(location):
        path = local_path(location)
        check_regular_file(path, shown=shown)
        name, hint = ffmpeg_name(path), "not a video, or damaged"
    elif location.lower().startswith("rtsp"):
        options = {"rtsp_transport": "tcp", **options}
    try:
        # Titles and tags are in any encoding; nothing reads them.
        container = av.open(name, options=options, timeout=timeouts_s, metadata_errors="replace")
    except av.FFmpegError as error:
        # Its own word for a time limit of ours is "Immediate exit requested".
        timed_out = isinstance(error, av.error.ExitError)
        reason = f"no answer in {timeouts_s[0]:g} s" if timed_out else error.strerror
        raise StepError(f"{shown}: cannot open: {reason}; {hint}") from error
    films = film_streams(container)
    problem = None
    if not films:
        kinds = {"cover picture" if stream.type == "video" else stream.type for stream in container.streams}
        problem = f"no video stream (found: {', '.join(sorted(kinds)) or 'nothing'})"
    elif films[0].codec_context is None:
        problem = (
            "FFmpeg has no decoder for its video here; convert it: ffmpeg -i IN -c:v libx264 OUT.mp4, or copy it "
            "again, if it should be a common kind"
        )
    if problem is not None:
        container.close()
        raise StepError(f"{shown}: {problem}")
    films[0].thread_type = "AUTO"
    for stream in container.streams:
        if stream.index != films[0].index:
            stream.discard = Discard.all
    return container, films
