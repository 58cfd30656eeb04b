"""Children end with their parent, however it ends."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from step.parent import child_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def _children_of(process_id: int) -> list[int]:
    tasks = Path(f"/proc/{process_id}/task")
    return [int(word) for task in tasks.iterdir() for word in (task / "children").read_text().split()]


def _wait_for_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _kill_and_see_all_end(parent: subprocess.Popen[str]) -> None:
    descriptors = [os.pidfd_open(child) for child in _children_of(parent.pid)]
    assert descriptors
    parent.kill()
    parent.communicate()
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = len(descriptors)
    while left:
        ended = poll.poll(10_000)
        assert ended, f"{left} of {len(descriptors)} children live on"
        for descriptor, _ in ended:
            poll.unregister(descriptor)
            os.close(descriptor)
            left -= 1


def _start(code: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | variables)


def test_a_module_that_is_run_as_a_child(tmp_path):
    """It would wait for ever; its parent is killed."""
    (tmp_path / "waits.py").write_text(
        "import sys, threading\nprint(*sys.argv, flush=True)\nthreading.Event().wait()\n"
    )
    code = (
        "import subprocess, sys; from step.parent import child_command; subprocess.run(child_command('waits', 'a b'))"
    )
    parent = _start(code, PYTHONPATH=str(tmp_path))
    assert _wait_for_line(parent).split("/")[-1] == "waits.py a b\n"
    _kill_and_see_all_end(parent)


def test_a_parent_that_has_ended_before(tmp_path):
    (tmp_path / "runs.py").write_text("print('ran')")
    command = child_command("runs")
    command[command.index(str(os.getpid()))] = "1"
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )
    assert (done.returncode, done.stdout) == (1, "")


def test_workers_of_extraction(make_video, tmp_path):
    """One that is in the middle of a video; multiprocessing's resource tracker ends with it."""
    video = make_video(frames=3000)
    command = [sys.executable, "-m", "step.data.cli", "extract", str(video), "-o", str(tmp_path / "out")]
    parent = subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    index = tmp_path / "out" / "video" / "index.json"
    while not index.exists():
        assert parent.poll() is None
    _kill_and_see_all_end(parent)


def test_workers_of_training():
    code = """
import threading, torch
import torchvision_on_cpu
torchvision_on_cpu.load_torchvision()
from step.training.samples.loading import load_batches
class Waits(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, index):
        print("loading", flush=True)
        threading.Event().wait()
next(load_batches(Waits(), [[0], [1]], workers=1))
"""
    parent = _start(code, PYTHONPATH=str(ROOT / "tests"))
    assert _wait_for_line(parent) == "loading\n"
    _kill_and_see_all_end(parent)


def test_the_build_process(tmp_path):
    """It is asked to build and gets no further than reading the request."""
    code = """
import subprocess, sys
from step.parent import child_command
process = subprocess.Popen(child_command("step_export.engines.worker"), stdin=subprocess.PIPE)
print("started", flush=True)
process.wait()
"""
    parent = _start(code)
    assert _wait_for_line(parent) == "started\n"
    _kill_and_see_all_end(parent)
    assert -parent.returncode == signal.SIGKILL
