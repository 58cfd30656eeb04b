"""The benchmark of docs/training.md, on two synthetic videos."""

import sys

import loading_speed

from step.data.toy.toy import generate


def test_loading_speed(tmp_path, capsys, monkeypatch):
    generate(tmp_path / "toy", videos={"train": 1, "val": 1})
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "toy"), "--config", "toy_detect.yaml", "--clips", "2"])
    threads = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr("cv2.setNumThreads", threads.append)
    loading_speed.main()
    assert threads == [1, 1]
    printed = capsys.readouterr().out
    rows = {line[:18].strip(): line.split()[-3:] for line in printed.splitlines()}
    assert all(float(rows[name][1]) > 0 for name in ("read and decode", "and resize", "and augment", "colours alone"))
    assert "16 cores feed it up to" in printed
