"""step-eval on files of results."""

import json
import os
import re
import stat

import pytest
from helpers import assert_one_error, run_command, shared_path
from step_runtime.evaluation.cli import main

from step.evaluation.scoring import ScoringOptions, score_files

TRUTH = "a,0902,0.1,0.1,0.5,0.5,12,0\na,0902,0.1,0.1,0.5,0.5,14,0\na,0903,0.2,0.2,0.5,0.5,12,0\n"
RESULTS = "a,0902,0.1,0.1,0.5,0.5,12,0.9\na,0902,0.1,0.1,0.5,0.6,14,0.8\na,0903,0.6,0.6,0.9,0.9,12,0.7\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "gt.csv").write_text(TRUTH)
    (tmp_path / "r.csv").write_text(RESULTS)
    return tmp_path


def _words(folder, *more):
    return ["--results", folder / "r.csv", "--truth", folder / "gt.csv", *more]


def test_the_known_map(capsys, tmp_path):
    folder = shared_path("real/ava_eval")
    words = ["--results", folder / "pred.csv", "--truth", folder / "gt.csv", "--json", tmp_path / "s.json"]
    code, printed, _ = run_command(main, capsys, *words, "--label-map", folder / "action_list.txt")
    assert code == 0
    assert "frame-mAP@0.5: 0.09385522" in printed
    assert json.loads((tmp_path / "s.json").read_text())["mAP"]["0.5"] == pytest.approx(0.09385522, abs=1e-8)


def test_json(files, capsys):
    code, printed, _ = run_command(main, capsys, *_words(files, "--iou", "0.5,0.9", "--json", files / "s.json"))
    assert code == 0
    assert "frame-mAP@0.9: 0.25000000" in printed
    written = json.loads((files / "s.json").read_text())
    assert written["mAP"] == {"0.5": 0.75, "0.9": 0.25}
    assert written["per_class"] == {"0.5": {"12": 0.5, "14": 1.0}, "0.9": {"12": 0.5, "14": 0.0}}
    assert written["options"] == {"ious": [0.5, 0.9], "cap": None, "frames_without_truth": "count"}
    assert written["counts"]["detections scored"] == 3


def test_excluded_key_frames_and_a_label_map(files, capsys):
    (files / "excluded.csv").write_text("a,0903\n")
    (files / "map.pbtxt").write_text('item { name: "stand" id: 12 }')
    words = _words(files, "--exclude", files / "excluded.csv", "--label-map", files / "map.pbtxt")
    code, printed, _ = run_command(main, capsys, *words)
    assert code == 0
    assert "12 stand" in printed
    assert "frame-mAP@0.5: 1.00000000" in printed


def test_video_map(files, capsys):
    (files / "r.csv").write_text(RESULTS.replace("0.5,0.5,12,0.9", "0.5,0.42,12,0.9"))
    code, printed, _ = run_command(main, capsys, *_words(files, "--video-map", "--json", files / "s.json"))
    assert code == 0
    # stand: half the tube in time and 4/5 in space there; talk: all of its one key frame, 4/5 in space
    assert "video-mAP@0.2: 1.00000000" in printed
    assert "video-mAP@0.5: 0.50000000" in printed
    written = json.loads((files / "s.json").read_text())
    assert written["video_per_class"]["0.5"] == {"12": 0.0, "14": 1.0}
    (files / "gt.csv").write_text("a,0902,0.1,0.1,0.5,0.5,12\n")
    assert_one_error(run_command(main, capsys, *_words(files, "--video-map")), "gt.csv, line 1: has no person id")


def test_a_label_map_without_the_60(files, capsys):
    (files / "map.pbtxt").write_text('item { name: "stand" id: 12 }\nitem { name: "juggle" id: 99 }')
    _, _, notes = run_command(main, capsys, *_words(files, "--label-map", files / "map.pbtxt"))
    assert "the label map has 1 of the challenge's 60 classes; only its own 2 count" in notes


def test_no_detections(files, capsys):
    (files / "r.csv").write_text("")
    code, printed, notes = run_command(main, capsys, *_words(files))
    assert code == 0
    assert "the results have no detections: mAP is 0" in notes
    assert "frame-mAP@0.5: 0.00000000" in printed


def test_results_outside_the_truth_are_reported(files, capsys):
    (files / "r.csv").write_text(RESULTS + "b,0902,0,0,1,1,12,0.99\n")
    _, printed, notes = run_command(main, capsys, *_words(files))
    assert "1 of 2 videos of the results are not in the truth: b" in notes
    assert "1 detections lie in key frames without truth" in notes
    _, dropped, _ = run_command(main, capsys, *_words(files, "--frames-without-truth", "drop"))
    assert "frame-mAP@0.5: 0.75000000" in dropped
    assert "frame-mAP@0.5: 0.75000000" not in printed


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--iou", "0"], r"--iou is 0; it must be a number in \(0, 1\]"),
        (["--iou", "0.5,0.5"], "--iou is 0.5,0.5; give each overlap once"),
        (["--iou", "0.5,0.50000001"], "give each overlap once"),
        (["--json", "."], "a folder is in the way; name a file"),
        (["--cap", "0"], "--cap is 0; it must be a whole number of at least 1"),
        (["--label-map", "none.pbtxt"], "none.pbtxt: no such file"),
        (["--exclude", "none.csv"], "none.csv: no such file"),
    ],
)
def test_bad_options(more, said, files, capsys):
    assert_one_error(run_command(main, capsys, *_words(files, *more)), said)


def test_what_is_typed_wrong(files, capsys):
    done = run_command(main, capsys, *_words(files, "--frames-without-truth", "dorp"))
    assert_one_error(done, "'dorp' is not one of 'count', 'drop'; did you mean 'drop'?", exit_code=2)


def test_a_detection_without_area_is_none(files, capsys):
    """As in the challenge's evaluator; it keeps its place under the cap."""
    (files / "r.csv").write_text(RESULTS + "a,0902,0.3,0.3,0.3,0.5,12,0.99\n")
    words = _words(files, "--json", files / "s.json")
    _, printed, _ = run_command(main, capsys, *words)
    assert "frame-mAP@0.5: 0.75000000" in printed
    assert json.loads((files / "s.json").read_text())["counts"]["detections without area"] == 1
    _, printed, _ = run_command(main, capsys, *words, "--cap", "1")
    assert "frame-mAP@0.5: 0.00000000" in printed


def test_frames_with_other_classes_only_are_without_truth(files, capsys):
    """The challenge's code reads the ground truth of the label map's classes alone."""
    (files / "map.pbtxt").write_text('item { name: "walk" id: 14 }')
    (files / "r.csv").write_text(RESULTS + "a,0903,0.2,0.2,0.5,0.5,14,0.95\n")
    words = _words(files, "--label-map", files / "map.pbtxt")
    _, counted, _ = run_command(main, capsys, *words)
    _, dropped, _ = run_command(main, capsys, *words, "--frames-without-truth", "drop")
    assert "frame-mAP@0.5: 0.50000000" in counted
    assert "frame-mAP@0.5: 1.00000000" in dropped


def test_ties_at_the_cap(files, capsys):
    """Those of equal scores stay that came first: a row takes a place only with a greater score."""
    (files / "gt.csv").write_text("a,0902,0.1,0.2,0.5,0.6,12,0\n")
    rows = ["a,0902,0.1,0.2,0.5,0.6,12,0.9\n", "a,0902,0.6,0.1,0.9,0.6,12,0.9\n"]
    for order, expected in ((rows, "1.00000000"), (rows[::-1], "0.00000000")):
        (files / "r.csv").write_text("".join(order))
        _, printed, _ = run_command(main, capsys, *_words(files, "--cap", "1"))
        assert f"frame-mAP@0.5: {expected}" in printed


@pytest.mark.parametrize(
    ("cap", "expected"), [(5, 0.6268500482), (10, 0.6634450982), (15, 0.6848025211), (20, 0.6873051334)]
)
def test_the_challenges_cap(cap, expected):
    """Values of the challenge's reader, with its sorts made stable."""
    score = score_files(
        shared_path("cases/cap_results.csv"),
        shared_path("cases/cap_truth.csv"),
        options=ScoringOptions(cap=cap),
    )
    assert score.mean_ap(0.5) == pytest.approx(expected, abs=5e-11)


def test_names_that_look_like_markup(files, capsys):
    (files / "map.pbtxt").write_text('item { name: "[red]stand } [/bold] $5 \\frac$" id: 12 }')
    words = _words(files, "--label-map", files / "map.pbtxt", "--html", files / "p.html")
    code, printed, error = run_command(main, capsys, *words)
    assert code == 0, error
    assert "12 [red]stand } [/bold]" in printed


def test_a_device_is_written_to_and_not_replaced(files, capsys):
    (files / "real.json").write_text("old")
    (files / "link.json").symlink_to(files / "real.json")
    os.mkfifo(files / "pipe")
    for name in ("pipe", "link.json"):
        reader = os.open(files / name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            code, _, error = run_command(main, capsys, *_words(files, "--json", files / name))
            assert code == 0, error
            content = os.read(reader, 1 << 16) if name == "pipe" else (files / "real.json").read_bytes()
        finally:
            os.close(reader)
        assert json.loads(content)["mAP"] == {"0.5": 0.75}
    assert (files / "link.json").is_symlink()
    assert stat.S_ISFIFO((files / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.csv", RESULTS + "\n\na,0902,0.1\n", "r.csv, line 6: has 3 columns"),
        ("r.csv", RESULTS + "\n\na,xx\n", "r.csv, line 6: the second is 'xx'"),
        ("r.csv", RESULTS + "a,inf\n", "r.csv, line 4: the second is 'inf'; it must be a number, at least 0"),
        ("r.csv", RESULTS + "a,1e12,0.1,0.1,0.5,0.5,12,0.9\n", "line 4: the second is 1000000000000.0"),
        ("r.csv", RESULTS + "a,0903,0.1,0.1,0.5,0.5,70000,0.9\n", "line 4: the class is 70000; ids are 1 to 65535"),
        ("gt.csv", TRUTH.encode() + b"\xff\xfe,0902,0.1,0.1,0.5,0.5,12,0\n", "gt.csv, line 4: is not UTF-8 text"),
        ("map.pbtxt", 'item { name: "x" id: 0 }', "map.pbtxt, class 1 of 1: the id is 0; ids are 1 to 65535"),
        ("map.pbtxt", '# item { name: "x" id: 1 }\n', "map.pbtxt: holds no class"),
        ("ex.csv", "a,-3\n", "ex.csv, line 1: the second is '-3'"),
    ],
)
def test_the_line_that_is_wrong(name, content, said, files, capsys):
    (files / "map.pbtxt").write_text('item { name: "stand" id: 12 }')
    (files / "ex.csv").write_text("b,0902\n")
    (files / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    words = _words(files, "--label-map", files / "map.pbtxt", "--exclude", files / "ex.csv")
    assert_one_error(run_command(main, capsys, *words), re.escape(said))


def test_a_byte_order_mark_in_an_exclusion_list(files, capsys):
    (files / "ex.csv").write_bytes(b"\xef\xbb\xbfa,0903\r\n")
    _, printed, _ = run_command(main, capsys, *_words(files, "--exclude", files / "ex.csv"))
    assert "frame-mAP@0.5: 1.00000000" in printed


def test_bad_files(files, capsys):
    done = run_command(main, capsys, "--results", files / "r.csv")
    assert_one_error(done, "give --results and --truth", exit_code=2)
    (files / "r.csv").write_text(RESULTS + RESULTS.splitlines()[1] + "\n")
    assert_one_error(run_command(main, capsys, *_words(files)), "line 4: repeats line 2; remove one")
