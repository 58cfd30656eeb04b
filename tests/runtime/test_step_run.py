"""`step-run` as a user types it: results, options, bad input."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers import REAL_VIDEOS, numbered_picture, run_command, shared_path, wait_while_running
from step_runtime import Detector
from step_runtime.cli import main
from step_runtime.outputs import run_source
from step_runtime.outputs.overlay import OverlayWriter
from step_runtime.sources.video import VideoSource

from step.checkpoints.toy_model import WHAT_IT_KNOWS

STEP_RUN = Path(sys.executable).with_name("step-run")
RESULTS = ["detections.csv", "detections.jsonl", "overlay.mp4", "people.csv", "people.parquet", "run.json"]


def step_run(*arguments, **options) -> subprocess.CompletedProcess[str]:
    """Runs the command, with the backend whose sessions are made soonest."""
    words = [str(STEP_RUN), *map(str, arguments)]
    if "--backend" not in words and not any(word.endswith(".pth") for word in words):
        words += ["--backend", "onnxruntime"]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **options)


def assert_one_line(done, *said, exit_code=1):
    """One line on standard error that says it, no traceback, and the exit code."""
    assert done.returncode == exit_code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for text in said:
        assert text in lines[0]


def key_frames(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "detections.jsonl").read_text().splitlines()]


def csv_rows(folder) -> list[list[str]]:
    return list(csv.reader((folder / "detections.csv").read_text().splitlines()))


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos(name, tiny_bundle, tmp_path):
    video = shared_path(f"real/videos/{name}")
    done = step_run(video, "--model", tiny_bundle, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "out") == RESULTS
    found = key_frames(tmp_path / "out")
    assert [line["time_s"] for line in found] == pytest.approx(list(range(len(found))), abs=0.04)
    with av.open(str(video)) as before, av.open(str(tmp_path / "out" / "overlay.mp4")) as after:
        drawn = sum(packet.size > 0 for packet in after.demux(video=0))  # a frame each
        assert drawn == sum(1 for _ in before.decode(video=0))
        assert after.streams.video[0].codec.name == "h264"
    for row in csv_rows(tmp_path / "out"):
        assert row[0] == video.stem
        box = [float(value) for value in row[2:6]]
        assert 0 <= box[0] < box[2] <= 1
        assert 0 <= box[1] < box[3] <= 1
        assert 1 <= int(row[6]) <= 80


def test_what_was_chosen_and_bounded_is_said(make_video, tiny_bundle, tmp_path):
    times = [Fraction(number, 25) + (60 if number >= 50 else 0) for number in range(100)]
    video = make_video("12:30:05.mp4", frames=100, times=times)
    done = step_run(video, "--model", tiny_bundle, "--out", tmp_path / "a:b", "--no-overlay")
    assert done.returncode == 0, done.stderr
    note = f"{video}: no frame from 1.96 s to 62.00 s; a new segment begins there"
    assert note in done.stderr
    assert json.loads((tmp_path / "a:b" / "run.json").read_text())["notes"] == [note]
    assert [line["time_s"] for line in key_frames(tmp_path / "a:b")] == [0, 1, 62, 63]


def test_loops_and_torch_agree(make_video, tiny_bundle, tiny_checkpoint, tmp_path):
    video = make_video()
    for folder, arguments in (
        ("fused", ["--model", tiny_bundle, "--loop", "fused"]),
        ("steps", ["--model", tiny_bundle, "--loop", "steps"]),
        ("torch", ["--model", tiny_checkpoint]),
    ):
        assert step_run(video, *arguments, "--out", tmp_path / folder, "--no-overlay").returncode == 0
    fused, steps, reference = (csv_rows(tmp_path / f) for f in ("fused", "steps", "torch"))
    assert len(fused) == len(steps) == len(reference) > 100
    for one, two, three in zip(fused, steps, reference, strict=True):
        assert float(one[7]) == pytest.approx(float(two[7]), abs=2e-4)
        assert float(one[7]) == pytest.approx(float(three[7]), abs=2e-4)


def test_every_and_threshold(make_video, tiny_bundle, tmp_path):
    video = make_video(frames=30)
    out = tmp_path / "out"
    assert step_run(video, "--model", tiny_bundle, "--every", "0.5", "--out", out, "--no-overlay").returncode == 0
    assert [line["time_s"] for line in key_frames(out)] == [0.0, 0.48, 1.0]
    assert names(out) == [name for name in RESULTS if name != "overlay.mp4"]
    words = ("--model", tiny_bundle, "--every", "frame", "--score-threshold", "0.9999", "--out", out, "--overwrite")
    done = step_run(video, *words)
    assert done.returncode == 0
    assert "people: none above the score threshold; a lower --score-threshold shows less certain ones" in done.stdout
    assert [line["frame"] for line in key_frames(out)] == list(range(30))
    assert not any(line["boxes"] for line in key_frames(out))


def test_results_replace_older_ones_only_when_asked_to(make_video, tiny_bundle, tmp_path):
    """And never other files."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "detections.csv").write_text("old")
    (out / "overlay.mp4").write_text("yesterday's")
    words = (make_video(), "--model", tiny_bundle, "--no-overlay", "--out", out)
    assert_one_line(step_run(*words), f"{out}: holds the results of a run already; replace")
    assert names(out) == ["detections.csv", "notes.txt", "overlay.mp4"]
    assert step_run(*words, "--overwrite").returncode == 0
    assert names(out) == sorted({*RESULTS, "notes.txt"} - {"overlay.mp4"})
    assert "old" not in (out / "detections.csv").read_text()


def test_demo(tmp_path, monkeypatch, capsys):
    """Without a clone, a video or a model of one's own; it sees what is drawn, and says nothing of real videos."""
    monkeypatch.setenv("STEP_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    code, printed, error = run_command(main, capsys, "--demo", "--backend", "onnxruntime")
    assert code == 0, error
    assert names(tmp_path / "runs" / "demo") == RESULTS
    assert re.search(r"^people: up to \d at a time, at \d of \d key frames$", printed, re.MULTILINE)
    assert all(line["boxes"] for line in key_frames(tmp_path / "runs" / "demo"))
    assert WHAT_IT_KNOWS not in error
    code, _, error = run_command(main, capsys, "--demo", "--backend", "onnxruntime", "--no-overlay")
    assert code == 0, error  # its own folder may be replaced
    assert "overlay.mp4" not in names(tmp_path / "runs" / "demo")


def test_toy_says_what_it_knows(make_video, tmp_path, capsys):
    words = (make_video(), "--model", "toy", "--out", tmp_path / "out", "--no-overlay", "--backend", "onnxruntime")
    code, printed, error = run_command(main, capsys, *words)
    assert code == 0, error
    assert error.splitlines()[0] == WHAT_IT_KNOWS
    assert "(toy, onnxruntime on CPU, fused loop)" in printed


def test_what_is_not_here_is_one_line(make_video, tiny_bundle, tmp_path, capsys):
    words = (make_video(), "--model", tiny_bundle, "--no-overlay")
    _, _, error = run_command(main, capsys, *words, "--out", tmp_path / "a", "-q")
    assert error == ""
    _, _, error = run_command(main, capsys, *words, "--out", tmp_path / "b")
    assert len(error.splitlines()) == 1
    assert "; not here: tensorrt, tensorrt-rtx, onnxruntime on CUDA (step-run -v and step-doctor say why)" in error
    _, _, error = run_command(main, capsys, *words, "--out", tmp_path / "c", "-v")
    assert "tensorrt-rtx skipped: " in error
    assert "inference: " in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Missing argument SOURCE; give a video, or --demo"),
        (("v.mp4",), "Missing option --model; give a bundle, or toy"),
        (("v.mp4", "--demo"), "--demo with SOURCE v.mp4"),
        (("v.mp4", "--model", "toy", "--backend", "openvio"), "did you mean 'openvino'?"),
        (("v.mp4", "--model", "toy", "--loop", "fusd"), "did you mean 'fused'?"),
    ],
)
def test_usage(words, said, capsys):
    code, _, error = run_command(main, capsys, *words)
    assert code == 2
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert said in error


def test_the_nearest_model_is_offered(make_video, tmp_path, capsys):
    code, _, error = run_command(main, capsys, make_video(), "--model", "tou", "--out", tmp_path / "out")
    assert (code, error) == (1, "error: tou: no such bundle; did you mean 'toy'?\n")


def test_several_sources_and_patterns(make_video, tiny_bundle, tmp_path, capsys):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        make_video(name, frames=10)
    words = (tmp_path / "a.mp4", tmp_path / "[bc].mp4", "--model", tiny_bundle, "--out", tmp_path / "out")
    code, printed, error = run_command(main, capsys, *words, "--no-overlay")
    assert code == 0, error
    assert names(tmp_path / "out") == ["a", "b", "c"]
    assert [line.split(":")[0] for line in printed.splitlines() if "x real time" in line] == ["a", "b", "c"]
    code, _, error = run_command(main, capsys, tmp_path / "*.avi", "--model", tiny_bundle)
    assert (code, error) == (1, f"error: {tmp_path}/*.avi: no file or folder matches\n")


def test_folder_of_videos(make_video, tiny_bundle, tmp_path):
    make_video("a.mp4"), make_video("b.mp4")
    done = step_run(tmp_path, "--model", tiny_bundle, "--out", tmp_path / "out", "--no-overlay")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "out") == ["a", "b"]
    assert key_frames(tmp_path / "out" / "b")[0]["video"] == "b"


def test_folder_of_frames(tiny_bundle, tmp_path):
    """The release's demo layout, at a rate that is given."""
    frames = tmp_path / "frames" / "clip"
    frames.mkdir(parents=True)
    for index in range(24):
        cv2.imwrite(str(frames / f"frame{index:04d}.jpg"), numbered_picture(index, 96, 64))
    done = step_run(frames.parent, "--model", tiny_bundle, "--frames-fps", "12", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [line["frame"] for line in key_frames(tmp_path / "out")] == [0, 12]
    assert names(tmp_path / "out") == RESULTS


@pytest.mark.parametrize("frames", [1, 5])
def test_short_videos(frames, make_video, tiny_bundle, tmp_path):
    done = step_run(make_video(frames=frames), "--model", tiny_bundle, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(key_frames(tmp_path / "out")) == 1


def test_truncated_video_keeps_what_came_before(make_video, tiny_bundle, tmp_path):
    path = make_video(frames=150, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    done = step_run(path, "--model", tiny_bundle, "--out", tmp_path / "out")
    assert_one_line(done, "broke at", "of 6.00 s", "what came before is kept")
    assert 2 <= len(key_frames(tmp_path / "out")) < 6
    assert names(tmp_path / "out") == RESULTS


@pytest.mark.parametrize("content", [None, b"", b"not a video"])
def test_bad_videos(content, tiny_bundle, tmp_path):
    path = tmp_path / "video.mp4"
    if content is not None:
        path.write_bytes(content)
    done = step_run(path, "--model", tiny_bundle, "--out", tmp_path / "out")
    assert_one_line(done, "video.mp4")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--score-threshold", "nan"], "--score-threshold is nan"),
        (["--score-threshold", "1"], "--score-threshold is 1; it must be a number in [0, 1)"),
        (["--every", "0"], "--every is 0; it must be above 0 seconds"),
        (["--every", "nan"], "--every is nan"),
        (["--steps", "4"], "--steps is 4"),
        (["--device", "gpu"], "--device is 'gpu'"),
        (["--threads", "0"], "--threads is 0"),
        (["--frames-fps", "0"], "--frames-fps is 0"),
        (["--frames-fps", "inf"], "--frames-fps is inf"),
    ],
)
def test_bad_options(arguments, said, make_video, tiny_bundle, tmp_path):
    done = step_run(make_video(), "--model", tiny_bundle, "--out", tmp_path / "out", *arguments)
    assert_one_line(done, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--loop", "round"], ["--nonsense"]])
def test_what_is_typed_wrong(arguments, tmp_path):
    assert_one_line(step_run("video.mp4", "--model", tmp_path, *arguments), arguments[-1], exit_code=2)


def test_bad_bundles(make_video, tiny_bundle, tmp_path):
    assert_one_line(step_run(make_video(), "--model", tmp_path / "none"), "no such bundle")
    assert_one_line(step_run(make_video(), "--model", tmp_path), "not a bundle")


def test_bad_sources(tiny_bundle, tmp_path):
    for source, said in (
        ("http://127.0.0.1:9/v.mp4", "cannot open"),
        ("97", "camera 97"),
        (tmp_path, "neither videos"),
    ):
        done = step_run(source, "--model", tiny_bundle, "--out", tmp_path / "out")
        assert_one_line(done, said)


def test_unwritable_output(make_video, tiny_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    """It is refused before the model is loaded."""
    done = step_run(make_video(), "--model", tmp_path / "file", "--out", tmp_path / "file" / "out")
    assert_one_line(done, f"{tmp_path}/file/out: {tmp_path}/file is a file; name a folder with --out")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("limit", [100, 20_000])
def test_full_disk(limit, make_video, tiny_bundle, tmp_path):
    """A limit on file size stands for a full disk: the first write beyond it fails."""

    def set_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    video = make_video(frames=100)
    done = step_run(video, "--model", tiny_bundle, "--out", tmp_path / "out", preexec_fn=set_limit)
    assert_one_line(done, f"cannot write {tmp_path}/out: ")
    assert not (tmp_path / "out").exists()


def _written(out: Path, name: str) -> int:
    """How many bytes a run has written to a file that it has not put into place."""
    return sum(path.stat().st_size for path in out.parent.glob(f".step-*/new/{name}"))


def test_interrupt_keeps_what_came_before(make_video, tiny_bundle, tmp_path):
    video, out = make_video(frames=250), tmp_path / "out"
    words = [str(STEP_RUN), str(video), "--model", str(tiny_bundle), "--out", str(out), "--every", "frame"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
    wait_while_running(process, lambda: _written(out, "detections.jsonl") > 0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; what came before is kept" in errors
    assert names(out) == RESULTS
    assert 1 <= len(key_frames(out)) < 250


def test_url(make_video, tiny_bundle, tmp_path):
    """A video served on this machine."""
    video = make_video()
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(video.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        port = server.stdout.readline().split("port ")[1].split()[0]
        done = step_run(f"http://127.0.0.1:{port}/{video.name}", "--model", tiny_bundle, "--out", tmp_path / "out")
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    assert done.returncode == 0, done.stderr
    assert len(key_frames(tmp_path / "out")) == 2


def test_live_overlay(make_video, tiny_bundle, tmp_path, monkeypatch):
    """A live source cannot be read again: frames are drawn as they come, with the newest result's age."""

    room = threading.Semaphore(4)  # a real stream gives no more than can be drawn

    class Live(VideoSource):
        def __init__(self, location):
            super().__init__(location)
            self.is_live = True

        def frames(self):
            for frame in super().frames():
                assert room.acquire(timeout=60)
                yield frame

    draw = OverlayWriter.draw

    def drawn(*arguments, **options):
        draw(*arguments, **options)
        room.release()

    monkeypatch.setattr(OverlayWriter, "draw", drawn)

    video = make_video(frames=100)
    monkeypatch.setattr(run_source, "open_source", lambda location, **_options: Live(str(location)))
    with Detector.open(tiny_bundle, device="cpu") as detector:
        summary = run_source.run_source(
            detector,
            str(video),
            tmp_path / "out",
            run_source.RunOptions(every_s=Fraction(1, 2), score_threshold=0.3),
        )
    assert summary.key_frames + summary.state.dropped_clips == 8
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 100
    assert np.ptp(frames[-1].astype(int), axis=2).max() > 60


def test_interrupt_while_the_rest_is_drawn(make_video, tiny_bundle, tmp_path):
    """After the last key frame only the overlay is unfinished; what is done is kept then too."""
    video, out = make_video(frames=1200, size=(640, 480)), tmp_path / "out"
    words = [str(STEP_RUN), str(video), "--model", str(tiny_bundle), "--out", str(out), "--every", "1000"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    wait_while_running(process, lambda: _written(out, "overlay.mp4") > 100_000)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert names(out) == RESULTS
    assert len(key_frames(out)) == 1


def test_a_bad_video_does_not_stop_the_others(make_video, tiny_bundle, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"")
    make_video("b.mp4").rename(folder / "b.mp4")
    make_video("b.mkv").rename(folder / "b.mkv")
    done = step_run(folder, "--model", tiny_bundle, "--out", tmp_path / "out", "--no-overlay")
    assert_one_line(done, "a.mp4: the file is empty")
    assert names(tmp_path / "out") == ["b.mkv", "b.mp4"]
    assert key_frames(tmp_path / "out" / "b.mkv")[0]["video"] == "b.mkv"


@pytest.mark.parametrize("name", ['a, "b" é 日本 [x].mp4', b"bad\xff.mp4"])
def test_odd_file_names(name, make_video, tiny_bundle, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + (name if isinstance(name, bytes) else name.encode())))
    make_video().rename(path)
    out = tmp_path / "out [/b]"
    done = step_run(path, "--model", tiny_bundle, "--out", out, "--no-overlay")
    assert done.returncode == 0, done.stderr
    text = (out / "detections.csv").read_bytes().decode(errors="surrogateescape")
    rows = list(csv.reader(text.splitlines()))
    assert {row[0] for row in rows} == {path.stem}
    assert {len(row) for row in rows} == {8}
