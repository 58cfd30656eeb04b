"""Display matrices: all eight ways in which a picture can lie, once, wherever videos are read."""

import numpy as np
import pytest
from video_helpers import EIGHT_WAYS, write_display_matrix

from step.data.extract import extract
from step.data.frame_store import read_clip, read_frame
from step.data.video_clip import read_video_clip
from step.video.orientation import turning_filters
from step.video_stream import VideoStream


def _pictures(path):
    with VideoStream(str(path)) as stream:
        return [frame.rgb() for frame in stream.decode()]


@pytest.mark.parametrize("name", EIGHT_WAYS)
def test_shown_as_the_matrix_wants(name, make_video):
    """The planes are turned, so that not a single value differs from the turned picture's."""
    matrix, turned = EIGHT_WAYS[name]
    plain = make_video("plain.mp4", frames=5)
    expected = _pictures(plain)
    shown = _pictures(write_display_matrix(plain, matrix))
    for one, other in zip(shown, expected, strict=True):
        other = turned(other)
        assert one.shape == other.shape
        # Chroma is spread over pixels from left to right: only there may turning show.
        assert np.abs(one.astype(int) - other).mean() < 2


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 0)])
def test_a_matrix_that_shows_nothing_is_not_followed(matrix):
    a, b, c, d = (value << 16 for value in matrix)
    assert turning_filters((a, b, 0, c, d, 0, 0, 0, 1 << 30)) == ()


def test_angles_in_between_and_scales():
    assert turning_filters((60000, 20000, 0, -20000, 60000, 0, 0, 0, 1 << 30)) == ()
    assert turning_filters((20000, 60000, 0, -60000, 20000, 0, 0, 0, 1 << 30)) == (("transpose", "clock"),)
    assert turning_filters((-9, 1, 0, -1, -9, 0, 0, 0, 1 << 30)) == (("hflip", ""), ("vflip", ""))


@pytest.mark.parametrize("name", ["right", "mirrored"])
def test_a_turned_file_and_its_turned_copy(name, make_video, tmp_path):
    """Running, extraction, training and evaluation see the same pictures, to the bit."""
    import av

    matrix, _ = EIGHT_WAYS[name]
    turned = write_display_matrix(make_video("v.mp4", frames=100), matrix)
    copy = tmp_path / "copy" / "v.mkv"
    copy.parent.mkdir()
    with VideoStream(str(turned)) as stream, av.open(str(copy), "w") as container:
        out = None
        for frame in stream.decode():
            picture = frame.picture
            if out is None:
                out = container.add_stream("ffv1", rate=25)
                out.width, out.height, out.pix_fmt = picture.width, picture.height, "yuv420p"
            plain = av.VideoFrame.from_ndarray(picture.to_ndarray(), format="yuv420p")
            plain.pts = None
            container.mux(out.encode(plain))
        container.mux(out.encode(None))
    for one, other in zip(_pictures(turned), _pictures(copy), strict=True):
        assert (one == other).all()
    assert (read_video_clip(turned, 2) == read_video_clip(copy, 2)).all()
    for path, root in ((turned, "a"), (copy, "b")):
        extract(path, tmp_path / root)
    assert (read_clip(tmp_path / "a", "v", 2) == read_clip(tmp_path / "b", "v", 2)).all()
    assert read_frame(tmp_path / "a/v/00000/00000.jpg").shape[0] == 360
