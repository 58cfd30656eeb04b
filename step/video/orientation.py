"""Which side of a picture is up: the container's display matrix, applied once and in full (torch-free).

The matrix maps a stored pixel (x, y) to the shown one (a x + c y, b x + d y), both with y downwards; the rest of its
nine numbers only shifts. FFmpeg's filters turn whole planes, so that a turned recording and its physically turned copy
are the same to the bit.

Source: ISO/IEC 14496-12, 6.2.2; https://ffmpeg.org/doxygen/trunk/group__lavu__video__display.html.
"""

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    import av.filter

_MATRIX_BYTES = 36
_HORIZONTAL_FLIP, _VERTICAL_FLIP = ("hflip", ""), ("vflip", "")
_TRANSPOSE = {
    # By the signs of b and c: where a step to the right, and one downwards, go.
    (1, 1): "cclock_flip",
    (1, -1): "clock",
    (-1, 1): "cclock",
    (-1, -1): "clock_flip",
}

Filters = tuple[tuple[str, str], ...]


def turning_filters(matrix: tuple[int, ...]) -> Filters:
    """FFmpeg's filters (name, arguments) that show a picture as its display matrix wants; none where it is upright.

    Any of the eight ways in which a rectangle can lie, mirrored ones among them; angles in between go to the nearest. A
    matrix whose determinant is 0 would show nothing, and is not followed.

    Args:
        matrix: nine numbers, row by row.
    """
    a, b, _, c, d = matrix[:5]
    if a * d - b * c == 0:
        return ()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        # Of an angle in between, only a and d are large, and they tell.
        return (_HORIZONTAL_FLIP,) * (a < 0) + (_VERTICAL_FLIP,) * (d < 0)
    return (("transpose", _TRANSPOSE[_sign(b), _sign(c)]),)


def _sign(value: int) -> int:
    return -1 if value < 0 else 1


class Turner:
    """Turns a stream's frames upright, as the display matrix of each wants it."""

    def __init__(self) -> None:
        self._kind: tuple[object, ...] = ()
        self._graph: av.filter.Graph | None = None

    def upright(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        """The frame itself where it is upright, otherwise a turned copy."""
        filters = _filters_of(frame)
        if not filters:
            return frame
        kind = (filters, frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if self._graph is None or kind != self._kind:
            self._graph, self._kind = _make_graph(frame, filters), kind
        self._graph.vpush(frame)
        turned = self._graph.vpull()
        turned.time_base = frame.time_base
        return turned


def _filters_of(frame: "av.VideoFrame") -> Filters:
    from av.sidedata.sidedata import SideData, SideDataContainer

    # `frame.side_data` would keep the frame, and the decoder's threads, in a cycle until the collector comes by.
    data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    content = bytes(data) if isinstance(data, SideData) else b""
    if len(content) != _MATRIX_BYTES:
        return ()
    return turning_filters(struct.unpack("=9i", content))


def _make_graph(frame: "av.VideoFrame", filters: Filters) -> "av.filter.Graph":
    from av.filter import Graph

    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    for name, arguments in (*filters, ("buffersink", "")):
        added = graph.add(name, arguments)
        last.link_to(added)
        last = added
    graph.configure()
    return graph
