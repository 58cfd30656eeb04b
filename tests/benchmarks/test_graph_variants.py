"""benchmarks/graph_savings.py: every variant gives what the exported graph gives."""

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "graph_savings.py"


@pytest.mark.slow
def test_every_variant_is_the_same_graph(tiny_checkpoint):
    words = [tiny_checkpoint, "--runs", "1", "--seconds", "0", "--backends", "onnxruntime"]
    done = subprocess.run([sys.executable, _SCRIPT, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("onnxruntime") == 8
