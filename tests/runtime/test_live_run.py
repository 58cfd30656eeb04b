"""`step-run` on a live source: files grow while it runs, and whatever ends it leaves them whole."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import av
import pytest
from helpers import wait_while_running
from live_server import serve_live
from step_runtime.outputs.appended_file import AppendedFile
from step_runtime.outputs.live_folder import keep_live_run, live_folder
from step_runtime.outputs.run_manifest import RunManifest, read_run, write_run
from step_runtime.outputs.run_progress import RunProgress

from step import StepError
from step.files.scratch import is_scratch_name
from step.progress import Progress

STEP_RUN = Path(sys.executable).with_name("step-run")
_PLAYED = 10  # of a hundred frames: a busy machine draws those that it has the time for
NAMES = ("detections.jsonl", "detections.csv", "overlay.mp4", "run.json")


@pytest.fixture
def stream(make_video) -> bytes:
    """Four seconds."""
    return make_video("stream.ts", frames=100).read_bytes()


def _start(url: str, bundle: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    command = [str(STEP_RUN), url, "--model", str(bundle), "--out", str(out), "--every", "1/2", *words]
    command += ["--backend", "onnxruntime"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for_lines(process: subprocess.Popen[str], path: Path, count: int = 1) -> None:
    wait_while_running(process, lambda: path.is_file() and len(path.read_text().splitlines()) >= count)


def _check_whole(out: Path) -> None:
    """Every line can be read, and the overlay be played."""
    lines = (out / "detections.jsonl").read_text()
    assert lines.endswith("\n")
    assert all(json.loads(line)["video"] == "cam" for line in lines.splitlines())
    header, *people = (out / "people.csv").read_text().splitlines(keepends=True)
    assert header.startswith("video,time_s,frame,person,class_id,class_name,confidence,")
    assert all(row.startswith("cam,") and row.endswith("\n") for row in people)
    assert not (out / "people.parquet").exists()  # it could not be read while it grows
    assert _frames_in(out / "overlay.mp4") >= _PLAYED


def _frames_in(path: Path) -> int:
    """How many frames of an unfinished video can be played."""
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    except av.FFmpegError:
        return 0


def _scratch(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if is_scratch_name(path.name)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_signals(number, stream, tiny_bundle, tmp_path):
    """On a stream that stands still; the results are on disk before the run ends, which takes two seconds at most."""
    out = tmp_path / "out"
    with serve_live(stream) as server:
        process = _start(server.url, tiny_bundle, out, "--stall-timeout", "60")
        _wait_for_lines(process, out / "detections.jsonl", count=3)
        assert read_run(out).status == "running"
        start_s = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - start_s < 2
        assert len(server.clients) == 1  # some servers admit one
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert read_run(out).status == "running"
        assert _scratch(out)
    else:
        assert process.returncode == 130, errors
        assert "error: interrupted; what came before is kept" in errors
        assert read_run(out).status == "interrupted"
    _check_whole(out)


def test_the_next_run_sweeps_and_keeps_what_a_killed_one_left(stream, tiny_bundle, tmp_path):
    out = tmp_path / "out"
    with serve_live(stream) as server:
        process = _start(server.url, tiny_bundle, out, "--stall-timeout", "60")
        _wait_for_lines(process, out / "detections.jsonl", count=3)
        wait_while_running(process, lambda: _frames_in(out / "overlay.mp4") >= _PLAYED)
        process.kill()
        process.communicate()
        left = (out / "detections.jsonl").read_text()
        server.go_on.set()
        process = _start(server.url, tiny_bundle, out)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert errors.count("error: ") == 1
    # FFmpeg takes a connection that is closed for an end or for a failure, as it happens.
    assert re.search(r"cam.ts: (the stream ended|broke) at [34]\.\d\d s", errors)
    assert "; --reconnect waits for it to come back; what came before is kept" in errors
    assert not _scratch(out)
    (earlier,) = out.glob("earlier-*")
    assert (earlier / "detections.jsonl").read_text() == left
    _check_whole(earlier)
    _check_whole(out)
    run = read_run(out)
    assert (run.status, run.is_live, run.key_frames + run.dropped_clips) == ("failed", True, 8)
    assert run.problem in errors


def test_two_live_runs_do_not_share_a_folder(tmp_path):
    with (
        live_folder(tmp_path / "out", names=NAMES, evidence=NAMES[0]),
        pytest.raises(StepError, match="another process is writing it"),
        live_folder(tmp_path / "out", names=NAMES, evidence=NAMES[0]),
    ):
        pass


def _fill(folder: Path, text: str) -> None:
    for name in NAMES[:2]:
        (folder / name).write_text(text)
    manifest = RunManifest(
        status="finished", source="s", video="v", is_live=True, started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    )
    write_run(folder, manifest)


def test_earlier_runs_are_moved_aside(tmp_path):
    for text in ("first", "second", "third"):
        with live_folder(tmp_path, names=NAMES, evidence=NAMES[0]) as folder:
            assert [path.name for path in folder.iterdir() if path.is_file()] == []
            _fill(folder, text)
    assert (tmp_path / NAMES[0]).read_text() == "third"
    found = {path.name: (path / NAMES[0]).read_text() for path in tmp_path.glob("earlier-*")}
    assert found == {"earlier-2026-01-02T03-04-05Z": "first", "earlier-2026-01-02T03-04-05Z-2": "second"}
    keep_live_run(tmp_path, NAMES)
    assert len(list(tmp_path.glob("earlier-*"))) == 3


def test_a_run_that_writes_nothing_leaves_everything(tmp_path):
    _fill(tmp_path, "first")
    for out in (tmp_path, tmp_path / "new"):
        with live_folder(out, names=NAMES, evidence=NAMES[0]) as folder:
            (folder / NAMES[0]).write_text("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detections.csv", "detections.jsonl", "run.json"]
    assert (tmp_path / NAMES[0]).read_text() == "first"


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """By a limit on the size of files, which the kernel tells in the same way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = AppendedFile(tmp_path / "lines")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
        file.append(b"0123456789\n")
        file.append(b"0123456789\n")
        with pytest.raises(OSError, match="File too large"):
            file.append(b"0123456789\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
        file.close()
    assert (tmp_path / "lines").read_text() == "0123456789\n0123456789\n"


def test_a_damaged_run_file_is_none(tmp_path):
    for text in ("", "[" * 100_000, '{"status": "lost"}', "1" * 10_000):
        (tmp_path / "run.json").write_text(text)
        assert read_run(tmp_path) is None


class _Source:
    is_live, duration_s = True, None


class _KeyFrame:
    time_s, lag_s = 12.5, 0.25


class _State:
    dropped_clips = 7


def test_progress_in_a_log():
    progress = Progress("cam [x]", unit="s of video")
    run = RunProgress(progress)
    assert progress.line().endswith("waiting for the first clip")
    run.update(_Source, _KeyFrame, _State)
    line = progress.line()
    assert line.startswith("cam [x]: 12.5 s of video, ")
    assert re.search(r"1 key frames, [\d.]+/s, lag 0.2 s, 7 clips dropped$", line)
