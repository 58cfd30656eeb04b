"""step-eval --csv and --html."""

import base64
import csv
import importlib.util
import re

import cv2
import numpy as np
import pytest
from helpers import assert_one_error, run_command
from step_runtime.evaluation.cli import main

from step.evaluation.report import write_page
from step.evaluation.scoring import score_files

TRUTH = "v,0902,0.1,0.1,0.5,0.5,12,0\nv,0902,0.1,0.1,0.5,0.5,79,0\nv,0903,0.2,0.2,0.5,0.5,12,0\n"
RESULTS = "v,0902,0.1,0.1,0.5,0.5,12,0.9\nv,0903,0.6,0.6,0.9,0.9,12,0.7\n"


@pytest.fixture
def words(tmp_path):
    (tmp_path / "gt.csv").write_text(TRUTH)
    (tmp_path / "r.csv").write_text(RESULTS)
    return ["--results", tmp_path / "r.csv", "--truth", tmp_path / "gt.csv"]


def _images(page: str) -> list[np.ndarray]:
    contents = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(each), np.uint8), cv2.IMREAD_COLOR) for each in contents]


def test_csv(words, tmp_path, capsys):
    code, _, error = run_command(main, capsys, *words, "--csv", tmp_path / "c.csv", "--iou", "0.5,0.75")
    assert code == 0, error
    rows = list(csv.reader((tmp_path / "c.csv").read_text().splitlines()))
    assert rows[0] == ["class", "name", "group", "truth", "detections", "AP@0.5", "AP@0.75"]
    assert rows[1] == ["12", "stand", "person movement", "2", "2", "0.50000000", "0.50000000"]
    assert rows[2][2:] == ["person interaction", "1", "0", "0.00000000", "0.00000000"]


def test_page(words, tmp_path, capsys):
    (tmp_path / "map.pbtxt").write_text(
        'item { name: "stand <b>" id: 12 }\nitem { name: "talk" id: 79 }\nitem { name: "sit" id: 11 }'
    )
    more = ["--html", tmp_path / "p.html", "--label-map", tmp_path / "map.pbtxt"]
    code, _, error = run_command(main, capsys, *words, *more)
    assert code == 0, error
    page = (tmp_path / "p.html").read_text()
    assert "stand &lt;b&gt;" in page
    assert "stand <b>" not in page
    assert "0.2500" in page
    assert "nobody there" in page
    assert "http" not in page  # nothing is fetched from elsewhere
    figures = _images(page)
    assert len(figures) == 3
    assert all(figure is not None and figure.std() > 10 for figure in figures)


def test_images_of_mistakes(words, tmp_path):
    """Wrong boxes are red, the ground truth's green, at the right places."""
    asked = []

    def key_frame(video, second):
        asked.append((video, second))
        return np.full((480, 640, 3), 128, np.uint8)

    write_page(score_files(tmp_path / "r.csv", tmp_path / "gt.csv"), tmp_path / "p.html", key_frame=key_frame)
    assert asked == [("v", 903), ("v", 902), ("v", 903)]  # the wrong one, then the missed ones, largest first
    wrong = _images((tmp_path / "p.html").read_text())[3]
    assert wrong.shape == (240, 320, 3)
    blue, green, red = (int(value) for value in wrong[144 + 36, 192])  # the left edge of the wrong box
    assert red > 180 > max(blue, green)
    blue, green, red = (int(value) for value in wrong[48 + 36, 64])  # that of who stands there
    assert green > 150 > max(blue, red)


def test_nothing_to_draw(tmp_path, words, capsys):
    (tmp_path / "r.csv").write_text("")
    (tmp_path / "gt.csv").write_text("")
    code, _, error = run_command(main, capsys, *words, "--html", tmp_path / "p.html", "--csv", tmp_path / "c.csv")
    assert code == 0, error
    assert "has no detections: mAP is 0" in (tmp_path / "p.html").read_text()
    (tmp_path / "gt.csv").write_text(TRUTH)
    code, _, error = run_command(main, capsys, *words, "--html", tmp_path / "p.html")
    assert code == 0, error


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package(package, words, tmp_path, capsys, monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else original(name))
    done = run_command(main, capsys, *words, "--html", tmp_path / "p.html")
    assert_one_error(done, rf"--html needs {package}; install it with: pip install 'step-trt\[eval\]'")
    assert not (tmp_path / "p.html").exists()
