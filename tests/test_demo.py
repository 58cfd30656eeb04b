"""What `make demo` runs, on another video, so that no wheel is needed."""

import json
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.py"


def test_demo(make_video, tmp_path):
    words = [sys.executable, str(DEMO), "--out", str(tmp_path / "out"), "--video", str(make_video())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "UNTRAINED WEIGHTS" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out" / "detections.jsonl").read_text().splitlines()]
    assert [line["time_s"] for line in lines] == [0.0, 1.0]
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size > 0
