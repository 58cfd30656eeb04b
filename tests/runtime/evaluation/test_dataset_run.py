"""The chain from AVA's csv to mAP: prepare, extract, run a model, score."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_one_error, run_command, shared_path
from step_runtime import Detector
from step_runtime.evaluation.cli import main as step_eval
from step_runtime.evaluation.dataset_run import write_results

from step.data.cli import main as step_data
from step.data.dataset_folder import DatasetFolder
from step.data.toy import toy_cache
from step.evaluation.ava_csv import read_boxes


def _ava_folder(folder: Path, videos: Path, truth: str, capsys) -> Path:
    """A data set of the videos with this ground truth, made with the commands that users have."""
    folder.mkdir()
    (folder / "raw.csv").write_text(truth)
    run_command(step_data, capsys, "prepare", folder / "raw.csv", "-o", folder / "val.csv")
    words = ("extract", videos, "-o", folder / "frames", "--truth", folder / "val.csv", "--workers", "1")
    code, _, error = run_command(step_data, capsys, *words)
    assert code == 0, error
    code, _, error = run_command(step_data, capsys, "check", folder / "val.csv", "--frames", folder / "frames")
    assert code == 0, error
    return folder


@pytest.fixture
def data(make_video, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    make_video("v.mp4", frames=24 * 5, rate=Fraction(24)).rename(tmp_path / "videos" / "v.mp4")
    truth = "v,2,0.1,0.1,0.9,0.9,12,0\nv,3,0.1,0.1,0.9,0.9,14,0\n"
    return _ava_folder(tmp_path / "data", tmp_path / "videos", truth, capsys)


def test_ucf24(tiny_bundle, tiny_checkpoint, tmp_path, capsys):
    """Six real clips; the same mAP, digit by digit, with PyTorch and with ONNX Runtime, of an untrained model."""
    rows = shared_path("real/ucf24/ava_style.csv").read_text().splitlines()
    truth = "\n".join(row for row in rows if not row.startswith("v_Biking_g01_c01,0006"))  # beyond its end
    data = _ava_folder(tmp_path / "data", shared_path("real/ucf24"), truth, capsys)
    scores = []
    for model, more in ((tiny_bundle, []), (tiny_checkpoint, [])):
        words = [
            "--model",
            model,
            "--data",
            data,
            "--json",
            tmp_path / "s.json",
            "--results",
            tmp_path / "r.csv",
            *more,
        ]
        code, printed, error = run_command(step_eval, capsys, *words)
        assert code == 0, error
        assert "frame-mAP@0.5" in printed
        scores.append(json.loads((tmp_path / "s.json").read_text()))
    assert len(read_boxes(tmp_path / "r.csv", last="score")) == scores[0]["counts"]["detections"] > 1000
    assert scores[0]["counts"]["key frames"] == 31
    for other in scores[1:]:
        assert other["mAP"]["0.5"] == pytest.approx(scores[0]["mAP"]["0.5"], abs=1e-4)


def test_every_step(data, tiny_bundle, tmp_path, capsys, monkeypatch):
    """Each is what --steps gives alone, in one pass."""
    more = ["--data", data, "--json", tmp_path / "s.json", "--model", tiny_bundle]
    with monkeypatch.context() as patch:
        patch.setattr("step_runtime.evaluation.cli.write_results", None)  # it gives one step only
        code, printed, error = run_command(step_eval, capsys, *more, "--every-step")
    assert code == 0, error
    assert "after step" in printed
    by_step = json.loads((tmp_path / "s.json").read_text())["per_step"]
    assert list(by_step) == ["1", "2", "3"]
    run_command(step_eval, capsys, *more, "--steps", "2", "--results", tmp_path / "r.csv")
    assert json.loads((tmp_path / "s.json").read_text())["mAP"] == by_step["2"]
    code, _, error = run_command(step_eval, capsys, "--data", data, "--results", tmp_path / "r.csv", *more[2:4])
    assert code == 0, error
    assert json.loads((tmp_path / "s.json").read_text())["mAP"] == by_step["2"]  # the file alone gives the same


def test_every_step_of_a_library_that_gives_the_last_one(data, tiny_bundle, tmp_path, capsys, monkeypatch):
    """The model runs once for each step, and the scores are the same."""
    words = ["--data", data, "--json", tmp_path / "s.json", "--model", tiny_bundle, "--every-step"]
    written = []
    for gives_every_step in (True, False):
        monkeypatch.setattr(Detector, "gives_every_step", gives_every_step)
        code, _, error = run_command(step_eval, capsys, *words)
        assert code == 0, error
        written.append((tmp_path / "s.json").read_text())
    assert list(json.loads(written[0])["per_step"]) == ["1", "2", "3"]
    assert written[0] == written[1]


def test_page_of_a_data_set(data, tmp_path, capsys):
    """The images come from frames, and from videos where there are none."""
    (tmp_path / "r.csv").write_text("v,2,0.1,0.1,0.9,0.9,14,0.9\n")
    words = ["--data", data, "--results", tmp_path / "r.csv", "--html", tmp_path / "p.html", "--video-map"]
    for _ in range(2):
        code, printed, error = run_command(step_eval, capsys, *words)
        assert code == 0, error
        assert "video-mAP@0.2: 0.00000000" in printed
        assert (tmp_path / "p.html").read_text().count("data:image/jpeg") == 3
        if (data / "frames").exists():
            (data / "frames").rename(tmp_path / "away")
            (tmp_path / "videos").rename(data / "videos")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--label-map", "none.pbtxt"], "none.pbtxt: no such file"),
        (["--exclude", "none.csv"], "none.csv: no such file"),
        (["--json", "F/s.json"], "cannot write .* a file is in the way"),
    ],
)
def test_refused_before_the_model_runs(more, said, data, tiny_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "F").touch()
    monkeypatch.setattr("step_runtime.evaluation.cli.write_results", None)
    done = run_command(step_eval, capsys, "--model", tiny_bundle, "--data", data, *more)
    assert_one_error(done, said)


def test_page_with_results_that_have_no_frame(data, tmp_path, capsys):
    """Unknown videos, seconds beyond the end, a damaged frame: the page says so in place of the image."""
    rows = "ghost,2,0.1,0.1,0.9,0.9,14,0.99\n../../x,2,0,0,1,1,14,0.98\nv,77,0.1,0.1,0.9,0.9,12,0.97\n"
    (tmp_path / "r.csv").write_text(rows)
    (data / "frames" / "v" / "00003" / "00000.jpg").write_bytes(b"no JPEG")
    words = ["--data", data, "--results", tmp_path / "r.csv", "--html", tmp_path / "p.html"]
    code, _, error = run_command(step_eval, capsys, *words)
    assert code == 0, error
    page = (tmp_path / "p.html").read_text()
    assert page.count("not a key frame of the data set") == 2
    assert page.count("no image: ") == 4
    assert page.count("data:image/jpeg") == 1


def test_toy(tiny_bundle, tmp_path, capsys, monkeypatch):
    """Made once; the second time it is there."""
    monkeypatch.setenv("STEP_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(toy_cache, "VALIDATION_VIDEOS", 1)
    monkeypatch.chdir(tmp_path)
    words = ["--model", tiny_bundle, "--data", "toy"]
    code, printed, error = run_command(step_eval, capsys, *words)
    assert code == 0, error
    assert "frame-mAP@0.5" in printed
    (made,) = (tmp_path / "cache").glob("toy-*/")
    changed = made.stat().st_mtime_ns
    code, again, error = run_command(step_eval, capsys, *words)
    assert code == 0, error
    assert made.stat().st_mtime_ns == changed
    assert again.splitlines()[-1] == printed.splitlines()[-1]


def test_toy_without_a_place(tiny_bundle, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEP_DATA_CACHE", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    assert_one_error(run_command(step_eval, capsys, "--model", tiny_bundle, "--data", "toy"), "cannot write")


def test_results_are_the_detectors(data, tiny_bundle, tmp_path):
    folder = DatasetFolder.open(data, "val")
    assert folder.key_frames() == [("v", 2), ("v", 3)]
    steps = []
    with Detector.open(tiny_bundle) as detector:
        write_results(detector, folder, tmp_path / "r.csv", progress=lambda done, total: steps.append((done, total)))
        found = detector.detect(folder.read("v", 3, detector.config)[None])
    assert steps == [(1, 2), (2, 2)]
    table = read_boxes(tmp_path / "r.csv", last="score")
    mine = table.take(table.second == 3)
    count = int(found.counts[0])
    assert len(mine) == count
    np.testing.assert_allclose(mine.boxes_xyxy, np.clip(found.boxes[0, :count], 0, 1), atol=1e-3)
    np.testing.assert_array_equal(mine.label, found.labels[0, :count])
    np.testing.assert_allclose(mine.last, found.scores[0, :count], rtol=1e-3)


def test_a_clip_that_cannot_be_read_leaves_no_results(data, tiny_bundle, tmp_path, capsys):
    (data / "frames" / "v" / "00003" / "00000.jpg").write_bytes(b"no JPEG")
    words = ["--model", tiny_bundle, "--data", data, "--results", tmp_path / "r.csv"]
    assert_one_error(run_command(step_eval, capsys, *words), "not a whole JPEG file; extract it again")
    assert not (tmp_path / "r.csv").exists()


@pytest.mark.parametrize(
    ("words", "said", "exit_code"),
    [
        (["--model", "M"], "--model runs on --data", 2),
        (["--model", "M", "--data", "D", "--truth", "t.csv"], "holds the ground truth; give no --truth", 2),
        (["--model", "M", "--data", "nowhere"], "--data nowhere: no such folder", 1),
        (["--model", "M", "--data", "D", "--split", "test"], "has no test.csv; write it with step-data prepare", 1),
        (["--model", "M", "--data", "empty"], "empty: has no val.csv", 1),
        ([], "give --results and --truth, or --model and --data", 2),
        (["--results", "r.csv", "--data", "D", "--every-step"], "--steps and --every-step need a model that is run", 2),
        (["--data", "toy", "--split", "train", "--model", "M"], "--data toy has only val", 1),
        (["--model", "M", "--data", "D", "--every-step", "--loop", "fused"], "--every-step needs the graph of each", 2),
    ],
)
def test_bad_options(words, said, exit_code, data, tiny_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"M": str(tiny_bundle), "D": str(data)}
    done = run_command(step_eval, capsys, *(places.get(word, word) for word in words))
    assert_one_error(done, said, exit_code=exit_code)
