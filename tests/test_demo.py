"""What `make demo` runs, to its last file; and that what it shows is right."""

import csv
import json
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.py"
IOU = 0.5


def _overlap(one, other):
    low = [max(one[i], other[i]) for i in (0, 1)]
    high = [min(one[i], other[i]) for i in (2, 3)]
    inter = max(high[0] - low[0], 0) * max(high[1] - low[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inter / (sum(areas) - inter)


def test_demo(tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(DEMO), "--out", str(out)], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "overlay.mp4").stat().st_size > 0
    lines = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    people = {round(line["time_s"]): line["boxes"] for line in lines}
    truth = list(csv.reader((out / "toy" / "val.csv").read_text().splitlines()))
    found = 0
    for _, second, *corners, label, _ in truth:
        box = [float(corner) for corner in corners]
        near = [person for person in people[int(second)] if _overlap(person["box"], box) >= IOU]
        found += any(int(label) in [action["id"] for action in person["actions"]] for person in near)
    assert found >= 0.6 * len(truth), f"{found} of {len(truth)} actions were found"
