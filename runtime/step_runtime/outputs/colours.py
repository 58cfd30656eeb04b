"""In which colours an overlay is encoded, and the tags that say so.

Source: ITU-T H.273, tables 2 to 4; https://ffmpeg.org/ffmpeg-codecs.html (`colorspace` and the options beside it).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext

_HD_PX = 720  # rows; players that heed no tags take pictures of so many for BT.709, smaller ones for BT.601
_BT709, _BT601, _LIMITED = 1, 6, 1  # H.273: matrix, primaries and transfer have the same numbers


def encoded_colours(picture: "av.VideoFrame") -> "av.VideoFrame":
    """An RGB picture as YUV 4:2:0: BT.709 from 720 rows on, BT.601 below, limited range."""
    from av.video.reformatter import ColorRange, Colorspace

    return picture.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709 if picture.height >= _HD_PX else Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
    )


def tag_colours(codec: "VideoCodecContext") -> None:
    """Writes into a stream what `encoded_colours` does; before its first picture, with its height set."""
    number = _BT709 if codec.height >= _HD_PX else _BT601
    codec.colorspace = codec.color_primaries = codec.color_trc = number
    codec.color_range = _LIMITED
