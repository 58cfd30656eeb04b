"""`step-batch --shard`, in this process, with worker processes."""

import itertools
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from batch_tables import contents, people_rows
from helpers import assert_one_error, run_command
from step_runtime import Detector
from step_runtime.batch.attempts import Attempts
from step_runtime.batch.cli import main
from step_runtime.batch.manifest import read_rows
from step_runtime.batch.options import Settings, WorkerOptions, model_digest
from step_runtime.batch.output import Output
from step_runtime.batch.records import VideoRecord
from step_runtime.batch.video_list import Video
from step_runtime.batch.worker_process import WorkerProcess
from step_runtime.evaluation.cli import main as evaluate
from step_runtime.outputs.run_source import RunOptions, run_source

_HERE = ("--shard", "0/1", "--workers", "1", "--backend", "onnxruntime", "--every", "0.5", "--score-threshold", "0.02")


@pytest.fixture
def videos(make_video, tmp_path) -> Path:
    folder = tmp_path / "videos"
    (folder / "day").mkdir(parents=True)
    shutil.move(make_video(frames=30), folder / "a.mp4")
    shutil.move(make_video(frames=20), folder / "day" / "b.mp4")
    return folder


def _statuses(out: Path) -> dict[str, str]:
    return {row["name"]: row["status"] for row in read_rows(Output(out))}


def test_people_are_those_of_step_run_and_step_eval_reads_the_folder(videos, tmp_path, capsys):
    out = tmp_path / "out"
    code, printed, _ = run_command(main, capsys, videos, "--model", "toy", "-o", out, *_HERE)
    assert code == 0
    assert printed.startswith("2 videos (2 done): 5 key frames of 2.0 s of video in ")
    with Detector.open("toy", "onnxruntime", threads=1) as detector:
        for name in ("a", "day/b"):
            options = RunOptions(every_s=Settings(model="", every="1/2").every_s, score_threshold=0.02, overlay=False)
            run_source(detector, videos / f"{name}.mp4", tmp_path / "run" / name, options, name=name)
    of_step_run = [people_rows(tmp_path / "run" / name / "people.parquet") for name in ("a", "day/b")]
    of_archive = [people_rows(path) for path in Output(out).tables("people")]
    assert sorted(itertools.chain(*of_archive)) == sorted(itertools.chain(*of_step_run))
    assert sum(map(len, of_step_run)) > 0

    (tmp_path / "truth.csv").write_text("a,0001,0.1,0.1,0.5,0.5,12,0\n")
    rows = "".join((tmp_path / "run" / name / "detections.csv").read_text() for name in ("a", "day/b"))
    (tmp_path / "results.csv").write_text(rows)
    scored = [
        run_command(evaluate, capsys, "--results", results, "--truth", tmp_path / "truth.csv")[:2]
        for results in (out, tmp_path / "results.csv")
    ]
    assert scored[0] == scored[1]
    assert scored[0][0] == 0

    before = contents(out)
    assert run_command(main, capsys, videos, "--model", "toy", "-o", out, *_HERE)[:2] == (
        0,
        f"nothing is left to do\nresults: {out / 'manifest.parquet'}\n",
    )
    assert contents(out) == before
    done = run_command(main, capsys, videos, "--model", "toy", "-o", out, *_HERE, "--every", "1", "--steps", "2")
    assert_one_error(done, r"holds results of other settings: now --every 1, not 1/2; --steps 2, not None; give those")
    assert_one_error(
        run_command(evaluate, capsys, "--results", tmp_path, "--truth", tmp_path / "truth.csv"), "holds no batch.json"
    )


def test_failures_take_nothing_with_them(videos, tmp_path, capsys):
    (videos / "bad.mp4").write_bytes(b"no video" * 100)
    (videos / "empty.mp4").write_bytes(b"")
    whole = (videos / "a.mp4").read_bytes()
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.writestr("z.mp4", whole)
    (tmp_path / "list.txt").write_text("gone.mp4\n")
    out = tmp_path / "out"
    words = (videos, tmp_path / "list.txt", f"zip://z.mp4::file://{tmp_path}/clips.zip", "--model", "toy", "-o", out)
    code, printed, error = run_command(main, capsys, *words, *_HERE, "--no-detections", "--clips-a-call", "3")
    assert code == 1
    assert printed.startswith("6 videos (")
    assert "3 of 6 videos failed or were set aside" in error.splitlines()[-1]
    rows = {row["name"]: row for row in read_rows(Output(out))}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a": "done",
        "bad": "failed",
        "day/b": "done",
        "empty": "failed",
        "gone": "failed",
        "z": "done",
    }
    assert rows["gone"]["reason"] == f"{tmp_path / 'gone.mp4'}: no such file"
    assert rows["empty"]["reason"].endswith("the file is empty (0 bytes)")
    assert (rows["z"]["clips"], rows["z"]["location"]) == (3, f"zip://z.mp4::file://{tmp_path}/clips.zip")
    assert [row[1:] for row in people_rows(Output(out).people("z"))] == [
        row[1:] for row in people_rows(Output(out).people("a"))
    ]
    assert not (out / "detections").exists()
    truth = tmp_path / "truth.csv"
    truth.write_text("a,0001,0.1,0.1,0.5,0.5,12,0\n")
    assert_one_error(run_command(evaluate, capsys, "--results", out, "--truth", truth), "--no-detections")

    (tmp_path / "gone.mp4").write_bytes(whole)
    assert run_command(main, capsys, *words, *_HERE, "--no-detections", "--retry-failed")[0] == 1
    assert _statuses(out) == {name: "failed" if name in ("bad", "empty") else "done" for name in rows}


def test_what_is_in_the_way_stops_the_run_in_one_line(videos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "batch.json").touch()
    done = run_command(main, capsys, videos, "--model", "toy", "-o", out, *_HERE)
    assert_one_error(done, "batch.json: is damaged")
    (out / "batch.json").unlink()
    (out / "other.txt").touch()
    done = run_command(main, capsys, videos, "--model", "toy", "-o", out, *_HERE)
    assert_one_error(done, r"holds other.txt, and no batch.json of an earlier run; name a new folder with --out")
    (out / "other.txt").unlink()
    assert run_command(main, capsys, videos / "day", "--model", "toy", "-o", out, *_HERE, "-q")[0] == 0
    (out / "people").rename(out / "kept")
    (out / "people").touch()
    done = run_command(main, capsys, videos, "--model", "toy", "-o", out, *_HERE, "-q")
    assert_one_error(done, "cannot write .*people.*: a file is in the way")
    assert _statuses(out)["a"] == "begun"
    (out / "people").unlink()
    (out / "kept").rename(out / "people")
    assert run_command(main, capsys, videos, "--model", "toy", "-o", out, *_HERE)[0] == 0
    assert set(_statuses(out).values()) == {"done"}


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["--model", "nosuch"], "nosuch: no such bundle", 1),
        (["--model", "toy", "--shard", "1/1"], "shards count from 0", 1),
        (["--model", "toy", "--address", "auto"], "--shard with --address", 2),
        (["--model", "toy", "--workers", "0"], "--workers is 0", 1),
        (["--model", "toy", "--score-threshold", "1"], "--score-threshold is 1;", 1),
        (["--model", "toy", "--reuse-backbone", "--clips-a-call", "2"], "--clips-a-call", 1),
        (["--model", "toy", "--scratch", "nosuch"], "--scratch nosuch: no such folder", 1),
        (["--model", "toy", "gone.mp4"], "gone.mp4: no such file or folder", 1),
    ],
)
def test_what_is_refused(words, said, code, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").touch()
    shard = [] if "--shard" in words else ["--shard", "0/1"]
    assert_one_error(run_command(main, capsys, "v", "-o", "out", *shard, *words), said, exit_code=code)


def test_without_ray_it_says_what_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run_command(main, capsys, tmp_path, "--model", "toy", "-o", tmp_path / "out")
    assert_one_error(done, r"pip install 'step-trt\[batch\]', or give --shard 0/1")
    assert not (tmp_path / "out").exists()


class _Killed(WorkerProcess):
    """A worker whose process is killed as soon as it is told to run one video."""

    def run(self, request):
        if request.name == "a":
            assert self._process is not None
            self._process.kill()
        return super().run(request)


def test_a_worker_process_that_dies_is_started_again(videos, tmp_path):
    options = WorkerOptions(settings=Settings(model=model_digest(Path("toy"))), model="toy", backend="onnxruntime")
    own = Attempts(Output(tmp_path / "out"), _Killed(options), run="run", node="node", detections=True)
    try:
        records = [own.settle(Video(name, str(videos / f"{name}.mp4"))) for name in ("a", "day/b")]
    finally:
        own.close()
    assert all(isinstance(record, VideoRecord) for record in records)
    assert [record.status for record in records] == ["set aside", "done"]
    assert (records[0].reason, records[0].attempts) == ("its worker was ended by SIGKILL", 2)
