"""A folder that a long run writes to has one writer."""

import os
import subprocess
import sys

import pytest

from step import StepError
from step.files.locks import sole_writer

CODE = """
import sys
from pathlib import Path
from step.files.locks import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_one_writer(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    said = f"run: process {holder.pid} is writing there; wait for it or choose"
    with pytest.raises(StepError, match=said), sole_writer(tmp_path / "run"):
        pass
    holder.kill()  # its lock ends with it
    holder.communicate()
    with sole_writer(tmp_path / "run"):
        assert os.listdir(tmp_path / "run") == [".writer.lock"]  # noqa: PTH208
