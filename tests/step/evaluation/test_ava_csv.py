"""Reading AVA's csv files: what is allowed, and the line and reason of what is not."""

import numpy as np
import pytest

from step import StepError
from step.evaluation.ava_csv import read_boxes, read_frames
from step.evaluation.box_table import find_duplicate

GOOD = "a,0902,0.1,0.2,0.3,0.4,12,0.5\n"


@pytest.fixture
def read(tmp_path):
    def read(text, last="score"):
        path = tmp_path / "r.csv"
        path.write_bytes(text.encode())
        return read_boxes(path, last=last)

    return read


def test_rows(read):
    table = read(GOOD + "b,3.5,0,0,1,1,80,1\n")
    assert table.videos == ("a", "b")
    assert table.video.tolist() == [0, 1]
    assert table.second.tolist() == [902, 3.5]
    assert table.boxes_xyxy.tolist() == [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]
    assert table.label.tolist() == [12, 80]
    assert table.last.tolist() == [0.5, 1]
    assert table.lines.tolist() == [1, 2]


def test_line_ends_blank_lines_and_frames_without_boxes(read):
    table = read("\r\na,0902,0.1,0.2,0.3,0.4,12,0.5\r\n\r\nb,0903\r\na,0904,0,0,1,1,3,0.5\r\n\r\n")
    assert table.second.tolist() == [902, 904]
    assert table.lines.tolist() == [2, 5]
    assert table.empty == (("b", 903.0),)


def test_seven_columns(read):
    """Proposals and some ground truth have no last column."""
    table = read("a,902,0,0,1,1,3\n", last="person")
    assert np.isnan(table.last).all()
    with pytest.raises(StepError, match="line 1: the score is nan"):
        read("a,902,0,0,1,1,3\n")


def test_ids_of_any_length(read):
    """Ids of 64 bits and more stay apart, 12, 012 and 12.0 are one, and what is no number is reported with its line."""
    ids = ["9223372036854775807", "9223372036854775806", "-1", "12.0", "012", "", "1" * 40, "nan"]
    table = read("".join(f"a,902,0,0,1,1,3,{number}\n" for number in ids), last="person")
    assert table.people == ("-1", "12", "9223372036854775806", "9223372036854775807", "1" * 40)
    assert [None if np.isnan(code) else int(code) for code in table.last] == [3, 2, 0, 1, 1, None, 4, None]
    with pytest.raises(StepError, match="line 2: the person id is 'Bob'; it must be a number"):
        read("a,902,0,0,1,1,3,1\na,902,0,0,1,1,3,Bob\n", last="person")
    with pytest.raises(StepError, match="line 1: the person id is '1e999999'; it must be a number"):
        read("a,902,0,0,1,1,3,1e999999\n", last="person")


def test_names_with_line_ends(read):
    """The csv module's rows: a line of the message is where the row begins."""
    table = read('"a\nb",902,0,0,1,1,3,0.5\n\n"c ""d""",902,0,0,1,1,3,0.5\n')
    assert table.videos == ("a\nb", 'c "d"')
    assert table.lines.tolist() == [1, 4]


def test_a_missing_person_is_none(read):
    assert np.isnan(read("a,902,0,0,1,1,3,\n", last="person").last).all()


@pytest.mark.parametrize("text", ["", "\n\n", "a,0902\n"])
def test_no_boxes(text, read):
    table = read(text)
    assert len(table) == 0
    assert table.boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "a,x,0,0,1,1,3,0.5\n", "line 2: the second is 'x'; it must be a number"),
        (GOOD + "a,1,0,zero,1,1,3,0.5\n", "line 2: the y1 is 'zero'; it must be a number"),
        (GOOD + "\na,1,0,0,1,1,walk,0.5\n", "line 3: the class id is 'walk'; it must be a number"),
        (GOOD + "a,1,0,0,1,1,3,high\n", "line 2: the score is 'high'; it must be a number"),
        (GOOD + "a,-1,0,0,1,1,3,0.5\n", "line 2: the second is -1.0; it must be a number, at least 0"),
        (GOOD + "a,1,nan,0,1,1,3,0.5\n", r"line 2: the box is \[nan, 0.0, 1.0, 1.0\]; every corner must be a number"),
        (GOOD + "a,1,0,0,1,1.1,3,0.5\n", r"line 2: the box is \[0.0, 0.0, 1.0, 1.1\]; corners must be within \[0, 1\]"),
        (GOOD + "a,1,10,20,30,40,3,0.5\n", r"corners must be within \[0, 1\]"),
        (GOOD + "\n\na,1,0.5,0,0.4,1,3,0.5\n", r"line 4: the box is .*; x1 <= x2 and y1 <= y2 must hold"),
        (GOOD + "a,1,0,0,1,1,0,0.5\n", "line 2: the class is 0; ids are 1 to 65535"),
        (GOOD + "a,1,0,0,1,1,3.5,0.5\n", "line 2: the class is 3.5; it must be a whole number"),
        (GOOD + "a,1,0,0,1,1,3,nan\n", "line 2: the score is nan; it must be a number"),
        (GOOD + "a,1,0,0,1,1\n", "line 2: has 6 columns; AVA's rows have 8 here"),
        ("video,time,score\n", "line 1: has 3 columns; AVA's rows have 8"),
        ("a,nine\n" + GOOD, "line 1: the second is 'nine'; it must be a number"),
    ],
)
def test_wrong_rows(text, message, read):
    with pytest.raises(StepError, match=message):
        read(text)


def test_no_file(tmp_path):
    with pytest.raises(StepError, match="none.csv: no such file"):
        read_boxes(tmp_path / "none.csv", last="score")
    with pytest.raises(StepError, match="cannot be read"):
        read_boxes(tmp_path, last="score")


def test_duplicates(read):
    rows = [GOOD, "a,902,0,0,1,1,3,0.5\n", "b,902,0,0,1,1,3,0.5\n"]
    assert find_duplicate(read("".join(rows))) is None
    assert find_duplicate(read("".join([*rows, rows[1], rows[1]]))) == (3, 1)
    without = "a,902,0,0,1,1,3,\n"
    assert find_duplicate(read(without + without, last="person")) == (1, 0)


def test_frames(tmp_path):
    path = tmp_path / "excluded.csv"
    path.write_text("a,0902\r\n\r\nb,3,more\n")
    assert read_frames(path) == (("a", 902.0), ("b", 3.0))
    path.write_text("a,0902\nb\n")
    with pytest.raises(StepError, match="line 2: is 'b'; a key frame is video,second"):
        read_frames(path)


def test_quoted_names_with_commas(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('"a,b",0902,0.1,0.1,0.5,0.5,12,0.9\n"c,d",0903\n')
    table = read_boxes(path, last="score")
    assert table.videos == ("a,b",)
    assert table.empty == (("c,d", 903.0),)
    assert read_frames(path) == (("a,b", 902.0), ("c,d", 903.0))


def test_rows_that_are_no_utf8(tmp_path, capfd):
    """Whatever their length: Arrow prints a traceback where one of another length is."""
    path = tmp_path / "r.csv"
    for row in (b"v\xe9,0902,0.1\n", b"v\xe9,0902,0.1,0.1,0.5,0.5,12,0.9\n"):
        path.write_bytes(b"v,0902,0.1,0.1,0.5,0.5,12,0.9\n" + row)
        with pytest.raises(StepError, match="r.csv, line 2: is not UTF-8 text; save the file as UTF-8"):
            read_boxes(path, last="score")
    assert capfd.readouterr().err == ""
