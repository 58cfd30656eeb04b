"""step-eval on files of results."""

import json

import pytest
from helpers import assert_one_error, run_command, shared_path
from step_runtime.eval_cli import main

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
    _, printed, _ = run_command(main, capsys, *_words(files, "--label-map", files / "map.pbtxt"))
    assert "the label map has 1 of the challenge's 60 classes; only its own 2 count" in printed


def test_no_detections(files, capsys):
    (files / "r.csv").write_text("")
    code, printed, _ = run_command(main, capsys, *_words(files))
    assert code == 0
    assert "r.csv has no detections: mAP is 0" in printed
    assert "frame-mAP@0.5: 0.00000000" in printed


def test_results_outside_the_truth_are_told(files, capsys):
    (files / "r.csv").write_text(RESULTS + "b,0902,0,0,1,1,12,0.99\n")
    _, printed, _ = run_command(main, capsys, *_words(files))
    assert "1 of 2 videos of the results are not in the truth: b" in printed
    assert "1 detections lie in key frames without truth" in printed
    _, dropped, _ = run_command(main, capsys, *_words(files, "--frames-without-truth", "drop"))
    assert "frame-mAP@0.5: 0.75000000" in dropped
    assert "frame-mAP@0.5: 0.75000000" not in printed


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--iou", "0"], "--iou is 0.0; it must be above 0 and at most 1"),
        (["--iou", "half"], "--iou is 'half'; give numbers"),
        (["--iou", "0.5,0.5"], "--iou is 0.5,0.5; give each overlap once"),
        (["--cap", "0"], "--cap is 0; it must be at least 1"),
        (["--label-map", "none.pbtxt"], "none.pbtxt: no such file"),
        (["--exclude", "none.csv"], "none.csv: no such file"),
        (["--frames-without-truth", "keep"], "'keep' is not one of 'count', 'drop'"),
    ],
)
def test_bad_options(more, said, files, capsys):
    assert_one_error(run_command(main, capsys, *_words(files, *more)), said)


def test_bad_files(files, capsys):
    assert_one_error(run_command(main, capsys, "--results", files / "r.csv"), "give --results and --truth")
    (files / "r.csv").write_text(RESULTS + RESULTS.splitlines()[1] + "\n")
    assert_one_error(run_command(main, capsys, *_words(files)), "line 4: repeats line 2; remove one")
