"""step-eval --csv and --html."""

import base64
import csv
import errno
import importlib.util
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import assert_one_error, run_command
from step_runtime.evaluation.cli import main

from step.evaluation.report import ScoredSubject, write_page
from step.evaluation.scoring import score_files

TRUTH = "v,0902,0.1,0.1,0.5,0.5,12,0\nv,0902,0.1,0.1,0.5,0.5,79,0\nv,0903,0.2,0.2,0.5,0.5,12,0\n"
SUBJECT = ScoredSubject(model="m", truth="gt.csv", machine="a machine", date="2026-01-02 03:04 UTC")
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
    assert "<title>step-eval: r.csv on gt.csv</title>" in page
    assert _verdict(page) == [
        "frame-mAP@0.5 is 0.2500 over 2 classes: best stand &lt;b&gt; (0.50), worst talk (0.00).",
        "33 % of the 3 labelled actions are found; missed most: talk (1), stand &lt;b&gt; (1).",
    ]
    assert "nobody there" in page
    assert "<td>detections of a key frame that count</td><td>all</td>" in page
    assert "http" not in page  # nothing is fetched from elsewhere
    assert str(tmp_path) not in page
    assert 'width="50.0%"' in page  # the bar of who stands
    assert page.count("<svg") == 2 + 2 + 2  # bars, curves, matrices


def _verdict(page: str) -> list[str]:
    return re.findall(r'<p class="verdict">(.*)</p>', page)


def test_names_are_text(tmp_path, capsys):
    """Whatever a class, a video or a file is called, it is shown, and nothing of it is markup."""
    name = """<script>alert('a"b')</script>\u202e"""
    truth, results = tmp_path / "g'\"<i>.csv", tmp_path / "r'\"<b>.csv"
    truth.write_text(TRUTH.replace("v,", "<em>v,"))
    results.write_text(RESULTS.replace("v,", "<em>v,"))
    (tmp_path / "map.pbtxt").write_text(f"item {{ name: {json.dumps(name)} id: 12 }}\nitem {{ name: 'x' id: 79 }}")
    words = ["--results", results, "--truth", truth, "--label-map", tmp_path / "map.pbtxt"]
    code, _, error = run_command(main, capsys, *words, "--html", tmp_path / "p.html")
    assert code == 0, error
    page = (tmp_path / "p.html").read_text()
    assert "&lt;script&gt;alert(&#39;a&#34;b&#39;)&lt;/script&gt;\\u202e" in page
    assert "<title>step-eval: r&#39;&#34;&lt;b&gt;.csv on g&#39;&#34;&lt;i&gt;.csv</title>" in page
    assert "&lt;em&gt;v" in page
    assert not re.search("<script|<b>\\.|<i>|<em>|\u202e", page)


def test_a_page_of_many(tmp_path):
    """10,000 mistakes in as many classes: the page says how many there are, and shows what can be looked at."""
    rows = [f"v,{902 + i % 40:04d},0.1,0.1,0.5,0.5,{1 + i}" for i in range(10_000)]
    (tmp_path / "gt.csv").write_text("".join(f"{row},0\n" for row in rows))
    (tmp_path / "r.csv").write_text("".join(f"{row.replace('0.1,0.1', '0.4,0.4')},0.5\n" for row in rows))
    write_page(score_files(tmp_path / "r.csv", tmp_path / "gt.csv"), SUBJECT, tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert len(page) < 1_000_000
    assert "18 of 10,000 are shown" in page
    assert "The first 100 of 10,000 classes." in page
    assert "The first 500 of 10,000 classes; --csv FILE has all of them." in page


def test_a_full_disk_leaves_the_old_page(words, tmp_path, capsys, monkeypatch):
    code, _, error = run_command(main, capsys, *words, "--html", "/dev/full")
    assert_one_error((code, "", error), "cannot write /dev/full: No space left on device; free space or choose")
    (tmp_path / "p.html").write_text("old")
    write_text = Path.write_text

    def full(path, text, **options):
        write_text(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        done = run_command(main, capsys, *words, "--html", tmp_path / "p.html")
    assert_one_error(done, "p.html: No space left on device")
    assert (tmp_path / "p.html").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before


def test_images_of_mistakes(words, tmp_path):
    """Wrong boxes are red, the ground truth's green, at the right places."""
    asked = []

    def key_frame(video, second):
        asked.append((video, second))
        return np.full((480, 640, 3), 128, np.uint8)

    score = score_files(tmp_path / "r.csv", tmp_path / "gt.csv")
    write_page(score, SUBJECT, tmp_path / "p.html", key_frame=key_frame)
    assert asked == [("v", 903), ("v", 902), ("v", 903)]  # the wrong one, then the missed ones, largest first
    wrong = _images((tmp_path / "p.html").read_text())[0]
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
    page = (tmp_path / "p.html").read_text()
    assert "the results have no detections: mAP is 0" in page
    assert _verdict(page) == ["Nothing to find: no class has ground truth, so frame-mAP@0.5 is 0.0000."]
    (tmp_path / "gt.csv").write_text(TRUTH)
    code, _, error = run_command(main, capsys, *words, "--html", tmp_path / "p.html")
    assert code == 0, error


def test_a_missing_package(words, tmp_path, capsys, monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else original(name))
    done = run_command(main, capsys, *words, "--html", tmp_path / "p.html")
    assert_one_error(done, r"--html needs jinja2; install it with: pip install jinja2")
    assert not (tmp_path / "p.html").exists()
