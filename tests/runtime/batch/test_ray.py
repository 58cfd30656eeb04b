"""`step-batch` on Ray, in processes of their own: one short run here; kills of workers, drivers and nodes are slow."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from batch_tables import contents
from helpers import assert_one_error, run_command, wait_while_running
from step_runtime.batch.cli import main
from step_runtime.batch.manifest import read_rows
from step_runtime.batch.output import Output

from step.data.toy.toy import generate

pytest.importorskip("ray", reason="the extra batch is not installed")

_VIDEOS = 10
_OPTIONS = ("--model", "toy", "--backend", "onnxruntime", "--threads", "1")


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "step_runtime.batch.cli", *map(str, words), *_OPTIONS]


def _start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(_command(*words, "--every", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str], *, code: int = 0) -> str:
    printed, error = process.communicate(timeout=300)
    assert process.returncode == code, printed + error
    return printed


def _records(out: Path) -> list[dict]:
    found = []
    for path in (out / "records").glob("*/*.json"):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue  # it is being replaced
    return found


def _count(out: Path, status: str) -> int:
    return sum(record["status"] == status for record in _records(out))


def _check(out: Path, reference: dict[str, bytes], videos: int) -> None:
    rows = read_rows(Output(out))
    assert [row["status"] for row in rows] == ["done"] * videos
    assert len({row["name"] for row in rows}) == videos
    assert contents(out) == reference


def test_on_this_machine(make_video, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        shutil.move(make_video(frames=20), tmp_path / "videos" / name / "x.mp4")
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"no video" * 100)
    done = subprocess.run(
        _command(tmp_path / "videos", "-o", tmp_path / "out", "--workers", "1", "--every", "0.5"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("3 videos (")
    said = [line for line in done.stderr.splitlines() if not line.startswith("archive: ")]
    assert said[0].startswith("the model toy knows")
    assert said[1].startswith("bad: failed: ")
    assert said[2].startswith("error: 1 of 3 videos failed")
    assert len(said) == 3, done.stderr  # Ray says nothing of its own
    rows = {row["name"]: row for row in read_rows(Output(tmp_path / "out"))}
    assert {name: row["status"] for name, row in rows.items()} == {"a/x": "done", "b/x": "done", "bad": "failed"}
    assert len(rows["a/x"]["node"]) > 30  # Ray's id
    assert rows["a/x"]["clips"] == 2
    assert len(contents(tmp_path / "out")) == 4


def test_a_cluster_that_is_not_there(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # nobody listens there once this is closed
    for address, said in ((f"127.0.0.1:{port}", "Connection refused"), ("nonsense", "give auto, or HOST:PORT")):
        done = run_command(main, capsys, tmp_path, "-o", tmp_path / "out", *_OPTIONS, "--address", address)
        assert_one_error(done, said)
    done = run_command(main, capsys, tmp_path, "-o", tmp_path / "out", *_OPTIONS, "--device", "cuda:1")
    assert_one_error(done, "Ray gives each worker a GPU of its own")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Some toy videos, and what a run that nobody disturbs makes of them."""
    folder = tmp_path_factory.mktemp("archive")
    generate(folder / "toy", videos={"val": _VIDEOS})
    _finish(_start(folder / "toy" / "videos", "-o", folder / "out", "--shard", "0/1", "--workers", "2"))
    return folder / "toy" / "videos", contents(folder / "out")


def _children(process_id: int) -> list[int]:
    """All processes below one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == process_id:
            found += [int(path.parent.name), *_children(int(path.parent.name))]
    return found


def _command_line(process_id: int) -> str:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _kill_one(process: subprocess.Popen[str], mark: str) -> None:
    """Kills the first process below one whose command line has a mark."""
    found = next(child for child in _children(process.pid) if mark in _command_line(child))
    os.kill(found, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["step_runtime.batch.worker", "ray::MapWorker"], ids=["worker", "actor"])
def test_kill_a_worker(archive, tmp_path, mark):
    videos, reference = archive
    out = tmp_path / "out"
    process = _start(videos, "-o", out, "--workers", "2")
    wait_while_running(process, lambda: _count(out, "done") >= 2 and _count(out, "begun") >= 1, limit_s=120)
    _kill_one(process, mark)
    _finish(process)
    _check(out, reference, _VIDEOS)
    assert max(row["attempts"] for row in read_rows(Output(out))) <= 2


@pytest.mark.slow
def test_kill_the_driver(archive, tmp_path):
    videos, reference = archive
    out = tmp_path / "out"
    process = _start(videos, "-o", out, "--workers", "2")
    wait_while_running(process, lambda: _count(out, "done") >= 3, limit_s=120)
    process.kill()
    process.communicate(timeout=60)
    done = {record["name"] for record in _records(out) if record["status"] == "done"}
    printed = _finish(_start(videos, "-o", out, "--workers", "2"))
    assert int(printed.split()[0]) <= _VIDEOS - len(done)
    _check(out, reference, _VIDEOS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", [("--shard", "0/1", "--workers", "2"), ("--workers", "2")], ids=["shard", "ray"])
def test_kill_at_twenty_random_moments(archive, tmp_path, how):
    """Each run is killed once, and then started again until its end."""
    videos, reference = archive
    state = random.Random(0)
    for number in range(20 if "--shard" in how else 6):
        out = tmp_path / str(number)
        process = _start(videos, "-o", out, *how)
        try:
            process.communicate(timeout=state.uniform(0.3, 14 if "--shard" in how else 22))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=60)
        _finish(_start(videos, "-o", out, *how))
        _check(out, reference, _VIDEOS)
        shutil.rmtree(out)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_run_killed_again_and_again(archive, tmp_path):
    """What is under way when a run is killed is never set aside for it."""
    videos, reference = archive
    state = random.Random(1)
    out = tmp_path / "out"
    for _ in range(20):
        process = _start(videos, "-o", out, "--shard", "0/1", "--workers", "2")
        try:
            process.communicate(timeout=state.uniform(0.5, 4))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=60)
    _finish(_start(videos, "-o", out, "--shard", "0/1", "--workers", "2"))
    _check(out, reference, _VIDEOS)


_CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(nodes[1], allow_graceful=False)
print("removed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


@pytest.mark.slow
def test_kill_a_node(archive, tmp_path):
    videos, reference = archive
    out = tmp_path / "out"
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    try:
        address = cluster.stdout.readline().strip()
        process = _start(videos, "-o", out, "--workers", "2", "--address", address)
        wait_while_running(process, lambda: _count(out, "done") >= 3 and _count(out, "begun") == 2, limit_s=120)
        cluster.stdin.write("\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline().strip() == "removed"
        _finish(process)
        _check(out, reference, _VIDEOS)
        rows = read_rows(Output(out))
        assert len({row["node"] for row in rows}) == 2
        assert not any(row["crashes"] for row in rows)
    finally:
        cluster.communicate("\n", timeout=120)
