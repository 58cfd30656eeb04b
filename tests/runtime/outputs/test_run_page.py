"""The page of a run: the answer first, a bar for each action, links to the files."""

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from helpers import assert_one_error, run_command
from step_runtime.cli import main
from step_runtime.outputs.run_page import write_run_page
from step_runtime.outputs.run_summary import RunSummary, Seen

from step import StepConfig


@pytest.fixture
def summary() -> RunSummary:
    made = RunSummary("<lobby> & door", files=("overlay.mp4", "people.csv", "run.json"), key_frames=8, elapsed_s=2.0)
    made.state.decoded_s = Fraction(4)
    made.state.notes.append("no frame from 1 s to 2 s")
    made.state.problems.append("<lobby>: broken at 3 s")
    made.seen = Seen(boxes=9, most_at_once=2, key_frames=6, actions=Counter({12: 6, 14: 3}))
    return made


def _page(summary: RunSummary, folder: Path) -> str:
    write_run_page(summary, config=StepConfig(), model="toy", what_ran="openvino on CPU, fused loop", folder=folder)
    return (folder / "run.html").read_text()


def test_it_answers_first(summary, tmp_path):
    text = _page(summary, tmp_path)
    assert "<lobby>" not in text
    assert "<title>step-run: &lt;lobby&gt; &amp; door</title>" in text
    verdicts = re.findall(r'class="verdict">(.*?)</p>', text)
    assert verdicts[-1] == "people: up to 2 at a time, at 6 of 8 key frames"
    assert re.findall(r'class="note">(.*?)</p>', text) == [
        "no frame from 1 s to 2 s",
        "&lt;lobby&gt;: broken at 3 s; what came before is kept",
    ]
    assert re.findall(r'class="name">(.*?)</span>', text) == ["stand", "walk"]
    assert re.findall(r'class="mark" width="(.*?)%"', text) == ["100.0", "50.0"]
    assert re.findall(r'href="(.*?)"', text) == ["overlay.mp4", "people.csv", "run.json"]
    assert '<video controls preload="metadata" src="overlay.mp4"' in text
    assert str(tmp_path) not in text


def test_nobody_and_no_overlay(summary, tmp_path):
    summary.seen, summary.files = Seen(), ("run.json",)
    text = _page(summary, tmp_path)
    assert "<video" not in text
    assert "people: none above the score threshold" in text
    assert 'class="bar"' not in text


def test_step_run_writes_it_and_takes_it_away(toy_bundle, make_video, tmp_path, capsys):
    words = (make_video(frames=30), "--model", toy_bundle, "--out", tmp_path / "out", "--backend", "onnxruntime")
    code, printed, error = run_command(main, capsys, *words, "--html", "--no-overlay")
    assert code == 0, error
    assert printed.splitlines()[-1].endswith("run.json, run.html")
    assert "<dd>bundle</dd>" in (tmp_path / "out" / "run.html").read_text()
    assert_one_error(run_command(main, capsys, *words), "holds the results of a run already")
    assert run_command(main, capsys, *words, "--overwrite", "--no-overlay")[0] == 0
    assert not (tmp_path / "out" / "run.html").exists()
