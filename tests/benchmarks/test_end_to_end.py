"""benchmarks/end_to_end.py: the naive demo finds what step-run finds; rounds, figures, reports."""

import json
from fractions import Fraction

import end_to_end
import pytest
from end_to_end_results import (
    EndToEndResults,
    draw_end_to_end,
    end_to_end_markdown,
    end_to_end_problems,
)
from end_to_end_runs import (
    MeasuredRuns,
    RunFigures,
    agreement,
    count_frames,
    measure_in_rounds,
    run_step_run,
)
from helpers import assert_one_error, run_command
from naive_demo import run_naive

from step import StepError
from step.data.toy.toy import generate


@pytest.fixture(scope="module")
def toy_video(tmp_path_factory):
    """One made-up video, whose figures the toy model knows."""
    folder = tmp_path_factory.mktemp("toy")
    generate(folder, videos={"val": 1})
    return str(next((folder / "videos").iterdir()))


def _rows(folder):
    return (folder / "detections.csv").read_text().splitlines()


@pytest.mark.parametrize("every_s", [Fraction(2), Fraction(7, 5)])
def test_the_naive_demo_finds_the_same(every_s, toy_video, toy_bundle, tmp_path):
    figures = {}
    for name in ("naive", "pipeline"):
        (tmp_path / name).mkdir()
        if name == "naive":
            figures[name] = run_naive(every_s, tmp_path / name, video=toy_video, checkpoint="toy", threads=None)
        else:
            run = {"video": toy_video, "model": str(toy_bundle), "backend": "onnxruntime", "threads": None}
            figures[name] = run_step_run(every_s, tmp_path / name, **run)
    assert figures["naive"].key_frames == figures["pipeline"].key_frames >= 2
    found, expected = _rows(tmp_path / "naive"), _rows(tmp_path / "pipeline")
    assert len(found) == pytest.approx(len(expected), abs=2)
    assert max(float(row.split(",")[-1]) for row in expected) > 0.5  # it is about people, not noise
    csvs = (tmp_path / name / "detections.csv" for name in ("naive", "pipeline"))
    assert agreement(*csvs) > 0.99
    assert {row.split(",")[1] for row in found} == {row.split(",")[1] for row in expected}
    for run in figures.values():
        assert 0 < run.worst_lag_s <= run.wall_s


def test_every_frame_of_a_short_video(make_video, tiny_checkpoint, tiny_bundle, tmp_path):
    """The first and last frames are repeated in both."""
    video = str(make_video(frames=4))
    for name in ("naive", "pipeline"):
        (tmp_path / name).mkdir()
    naive = run_naive(None, tmp_path / "naive", video=video, checkpoint=str(tiny_checkpoint), threads=None)
    run = {"video": video, "model": str(tiny_bundle), "backend": "onnxruntime", "threads": None}
    pipeline = run_step_run(None, tmp_path / "pipeline", **run)
    assert naive.key_frames == pipeline.key_frames == count_frames(video) == 4
    assert agreement(tmp_path / "naive/detections.csv", tmp_path / "pipeline/detections.csv") > 0.99


def test_agreement(tmp_path):
    one, other, none = (tmp_path / name for name in ("one.csv", "other.csv", "none.csv"))
    one.write_text("v,0001,0.1,0.1,0.5,0.5,12,0.9\nv,0002,0.1,0.1,0.5,0.5,12,0.9\n")
    other.write_text(
        "v,0001,0.103,0.1,0.5,0.5,12,0.9005\nv,0002,0.1,0.1,0.5,0.5,14,0.9\nv,0002,0.1,0.1,0.5,0.5,12,0.8\n"
    )
    none.write_text("")
    assert agreement(one, one) == 1
    assert agreement(one, other) == pytest.approx(1 / 3)  # another class, another score
    assert agreement(one, none) == agreement(none, one) == 0
    assert agreement(none, none) == 1


def _program(order, name, seconds, *, fail_at=None, rows="v,0001,0.1,0.1,0.5,0.5,12,0.9\n"):
    def run(every_s, folder):
        order.append((name, every_s))
        if len([1 for program, _ in order if program == name]) == fail_at:
            raise StepError(f"{name} failed")
        (folder / "detections.csv").write_text(rows)
        return RunFigures(key_frames=round(4 / every_s), wall_s=seconds * float(2 / every_s), worst_lag_s=0.5)

    return run


EVERYS = [Fraction(2), Fraction(1)]


def test_turns(tmp_path):
    order = []
    programs = {"a": _program(order, "a", 4.0), "b": _program(order, "b", 1.0, rows="")}
    rows = measure_in_rounds(programs, EVERYS, tmp_path, rounds=2)
    round = [("a", 2), ("b", 2), ("a", 1), ("b", 1)]
    assert order == [("a", 2), ("b", 2), *round, *round]
    assert [(row.program, row.every_s, len(row.runs)) for row in rows] == [(*pair, 2) for pair in round]
    assert [row.agreement for row in rows] == [None, 0.0, None, 0.0]
    results = _results(rows)
    assert [row.wall_s for row in results.rows] == [4, 1, 8, 2]
    assert [row.ratio for row in results.rows] == [1, 0.25, 1, 0.25]
    assert results.rows[3].key_frames_per_s == 2
    assert results.rows[3].frames_per_s == 50
    assert results.rows[3].real_time == 2


def test_a_program_that_fails_keeps_its_turns_and_takes_no_other_with_it(tmp_path):
    order = []
    programs = {"a": _program(order, "a", 4.0), "b": _program(order, "b", 1.0, fail_at=4)}
    rows = measure_in_rounds(programs, EVERYS, tmp_path, rounds=3)
    assert [len(row.runs) for row in rows] == [3, 1, 3, 1]
    assert {row.problem for row in rows if row.program == "b"} == {"b failed"}
    assert [name for name, _ in order].count("b") == 4
    results = _results(rows)
    assert end_to_end_problems(results) == ["b: b failed"]
    assert end_to_end_markdown(results).count("\n| ") == 5
    assert end_to_end_markdown(results).endswith("\nb: b failed\n")


def test_a_first_program_that_fails_leaves_the_others_without_ratio(tmp_path):
    order = []
    programs = {"a": _program(order, "a", 4.0, fail_at=1), "b": _program(order, "b", 1.0)}
    results = _results(measure_in_rounds(programs, EVERYS, tmp_path, rounds=1))
    assert [row.ratio for row in results.rows] == [None] * 4
    assert [row.program for row in results.measured] == ["b", "b"]
    draw_end_to_end(results, tmp_path / "plot.png")


def _results(rows):
    return EndToEndResults.of(rows, video="v", model="m", source_frames=100, duration_s=Fraction(4), threads=2)


def test_a_plot(tmp_path):
    rows = [
        MeasuredRuns(name, every_s, runs=[RunFigures(round(4 / every_s), wall_s + 0.1 * i, 0.5) for i in range(3)])
        for every_s in EVERYS
        for name, wall_s in (("a", 4.0), ("b", 1.0))
    ]
    draw_end_to_end(_results(rows), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_script(make_video, tiny_bundle, tiny_checkpoint, tmp_path, capsys):
    """Processes and all."""
    words = [make_video(frames=30), "--model", tiny_bundle, "--checkpoint", tiny_checkpoint, "--every", "1"]
    words += ["--backend", "onnxruntime,tensorrt", "--rounds", "1", "--threads", "1"]
    for kind in ("json", "markdown", "plot"):
        words += [f"--{kind}", tmp_path / kind]
    code, printed, error = run_command(end_to_end.main, capsys, *words)
    assert code == 0, error
    content = json.loads((tmp_path / "json").read_text())
    assert (content["kind"], content["source_frames"], content["duration_s"]) == ("end-to-end", 30, 1.2)
    naive, graphs, engines = content["rows"]
    assert (naive["program"], graphs["program"]) == (end_to_end.NAIVE, "onnxruntime")
    assert naive["key_frames"] == graphs["key_frames"] == 2
    assert graphs["agreement"] > 0.99
    assert graphs["ratio"] == pytest.approx(graphs["wall_s"] / naive["wall_s"])
    assert "`backend` tensorrt: " in engines["problem"]
    assert "tensorrt: `backend` tensorrt: " in printed
    assert end_to_end.NAIVE in (tmp_path / "markdown").read_text()
    assert (tmp_path / "plot").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--backend", "torch"), "--backend has 'torch'; give some of onnxruntime"),
        (("--every", "1,0"), "--every has '0'; give seconds above 0, or frame"),
        (("--json", "."), "a folder is in the way"),
        (("--model", "none", "--checkpoint", "toy"), "none"),
        (("--model", "none"), "--checkpoint is missing"),
    ],
)
def test_bad_input(words, said, make_video, capsys):
    assert_one_error(run_command(end_to_end.main, capsys, make_video(), *words), said)


def test_no_video(capsys):
    assert_one_error(run_command(end_to_end.main, capsys, "none.mp4"), "none.mp4: no such file")
