"""Ground truth in one form, and what was dropped for it."""

import pytest
from helpers import shared_path

from step import StepError
from step.data.prepare import prepare

MAP = 'item { name: "stand" id: 12 }\nitem { name: "walk" id: 14 }'


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "gt.csv"
    path.write_bytes(
        b"b,0903,0.1,0.10,0.5,0.5,14,3\r\n"
        b"a,1000,0.1,0.1,0.5,0.5,12,1\r\n"
        b"a,902,0.123456,0.1,0.5,0.5,12,0\r\n"
        b"a,902,0.123456,0.1,0.5,0.5,14,0\r\n"
        b"a,902,0.123456,0.1,0.5,0.5,12,0\r\n"
        b"a,902,0.2,0.1,0.5,0.5,80,\r\n"
    )
    return path


def test_order_and_form(truth, tmp_path):
    done = prepare(truth, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (
        b"a,0902,0.123456,0.1,0.5,0.5,12,0\n"
        b"a,0902,0.123456,0.1,0.5,0.5,14,0\n"
        b"a,0902,0.2,0.1,0.5,0.5,80,\n"
        b"a,1000,0.1,0.1,0.5,0.5,12,1\n"
        b"b,0903,0.1,0.1,0.5,0.5,14,3\n"
    )
    assert (done.rows, done.key_frames, done.videos) == (5, 3, 2)
    assert done.dropped == {"repeat an earlier row": 1}
    assert done.notes == ("1 rows have no person id",)


def test_preparing_twice_changes_nothing(truth, tmp_path):
    prepare(truth, tmp_path / "once.csv")
    done = prepare(tmp_path / "once.csv", tmp_path / "twice.csv")
    assert (tmp_path / "twice.csv").read_bytes() == (tmp_path / "once.csv").read_bytes()
    assert done.dropped == {}


def test_what_is_dropped_is_counted(truth, tmp_path):
    (tmp_path / "excluded.csv").write_text("b,903\nc,1\n")
    (tmp_path / "map.pbtxt").write_text(MAP)
    done = prepare(truth, tmp_path / "out.csv", label_map=tmp_path / "map.pbtxt", exclude=tmp_path / "excluded.csv")
    assert done.rows == 3
    assert done.dropped == {
        "repeat an earlier row": 1,
        "in excluded key frames": 1,
        "of classes that the label map has not": 1,
    }


def test_nothing_left(truth, tmp_path):
    (tmp_path / "map.pbtxt").write_text('item { name: "swim" id: 13 }')
    with pytest.raises(StepError, match="gt.csv: no row is left .*5 of classes that the label map has not"):
        prepare(truth, tmp_path / "out.csv", label_map=tmp_path / "map.pbtxt")
    assert not (tmp_path / "out.csv").exists()


def test_seconds_that_ava_does_not_annotate_are_reported(tmp_path):
    done = prepare(shared_path("real/ucf24/ava_style.csv"), tmp_path / "out.csv")
    assert done.notes[0].startswith("49 rows lie outside the seconds 902 to 1798 that AVA annotates, first: line 1")
