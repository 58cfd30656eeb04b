"""AVA's rows, as the challenge's evaluator and other tools read them."""

import numpy as np

from step.evaluation.ava_csv import read_boxes
from step.evaluation.ava_rows import ava_row, detection_rows, rows_text


def test_rows_as_they_are_written():
    boxes = np.array([[0.123456, 0, 1, 0.00012345], [0.5, 0.25, 0.75, 1]], np.float32)
    rows = detection_rows("a,b", 7, boxes, np.array([12, 80]), np.array([0.98765, 0.01], np.float32))
    assert rows_text(rows) == '"a,b",0007,0.1235,0,1,0.0001234,12,0.9876\n"a,b",0007,0.5,0.25,0.75,1,80,0.01\n'


def test_truth_keeps_its_digits_and_may_be_without_a_person():
    assert rows_text([ava_row("v", 902.5, (0.1, 0.2, 0.3, 1.0), 4, "", form=".4f")]) == (
        "v,0902.500,0.1000,0.2000,0.3000,1.0000,4,\n"
    )


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "r.csv").write_text(rows_text(detection_rows('v "1"', 3, [(0.1, 0.2, 0.3, 0.4)], [5], [0.5])))
    table = read_boxes(tmp_path / "r.csv", last="score")
    assert table.videos == ('v "1"',)
    assert (table.second.tolist(), table.label.tolist(), table.last.tolist()) == ([3], [5], [0.5])
    assert table.boxes_xyxy.tolist() == [[0.1, 0.2, 0.3, 0.4]]
