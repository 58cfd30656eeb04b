"""Which of a file's video streams is the film, as players choose it (torch-free).

Source: https://ffmpeg.org/ffmpeg.html ("Automatic stream selection"); https://ffmpeg.org/ffmpeg-formats.html
(dispositions).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av.container
    import av.video

_IMAGE_CODECS = frozenset({"bmp", "gif", "jpegls", "mjpeg", "png", "tiff", "webp"})
"""Covers and previews; a file with nothing else is a film in one of them."""


def film_streams(container: "av.container.InputContainer") -> "list[av.video.VideoStream]":
    """The video streams that are no cover pictures, thumbnails or parts of another stream, best first.

    A stream that can be decoded comes before one that cannot, the default ones before others, films before pictures;
    then the largest counts, then the one of the highest rate of bits, then the first.
    """
    from av.stream import Disposition

    no_film = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
    films = [stream for stream in container.streams.video if not stream.disposition & no_film]

    def rank(stream: "av.video.VideoStream") -> tuple[object, ...]:
        codec = stream.codec_context
        if codec is None:
            return (True,)
        is_default = bool(stream.disposition & Disposition.default)
        return (False, not is_default, codec.name in _IMAGE_CODECS, -codec.width * codec.height, -_bit_rate(stream))

    return sorted(films, key=rank)


def describe_choice(streams: "list[av.video.VideoStream]") -> str | None:
    """One sentence on which of several streams is taken; None where there is one."""
    if len(streams) < 2:
        return None
    shown = ", ".join(sorted(_describe(stream) for stream in streams[1:]))
    return f"has {len(streams)} video streams; {_describe(streams[0])} is taken, not {shown}"


def _describe(stream: "av.video.VideoStream") -> str:
    codec = stream.codec_context
    if codec is None:
        return f"stream {stream.index} (no decoder)"
    return f"stream {stream.index} ({codec.name}, {codec.width}x{codec.height})"


def _bit_rate(stream: "av.video.VideoStream") -> int:
    variant = stream.metadata.get("variant_bitrate", "")  # of HLS playlists
    if variant.isascii() and variant.isdecimal():
        return int(variant)
    return stream.codec_context.bit_rate or 0
