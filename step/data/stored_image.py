"""Scales a decoded frame to the height in which frames are stored, and writes it as JPEG (torch-free).

Source: SPEC.md, "Clip and preprocessing"; https://ffmpeg.org/ffmpeg-codecs.html (`-q:v`).
"""

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

HEIGHT_PX = 360
_QUALITY = "4"  # of ffmpeg's -q:v, 1 (best) to 31
_TIME_BASE = Fraction(1, 25)  # of single images: anything will do


def scaled(frame: "av.VideoFrame", pixel_format: str) -> "av.VideoFrame":
    """Scales a frame to 360 rows; the aspect ratio is kept, the width even."""
    from av.video.reformatter import ColorRange, Colorspace

    width = 2 * round(frame.width * HEIGHT_PX / frame.height / 2)
    # JPEG is full range and BT.601 whatever the video is; said aloud, because nothing converts it otherwise.
    return frame.reformat(
        width=width,
        height=HEIGHT_PX,
        format=pixel_format,
        interpolation="BICUBIC",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG,
    )


def encode_jpeg(frame: "av.VideoFrame") -> bytes:
    """Encodes a decoded frame as JPEG, 360 pixels high."""
    import av
    from av.video.codeccontext import VideoCodecContext

    image = scaled(frame, "yuvj420p")
    image.pts = 0
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = image.width, image.height, "yuvj420p"
    encoder.time_base, encoder.options = _TIME_BASE, {"qmin": _QUALITY, "qmax": _QUALITY}
    return b"".join(bytes(packet) for packet in (*encoder.encode(image), *encoder.encode(None)))
