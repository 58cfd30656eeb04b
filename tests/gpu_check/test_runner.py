"""Stages that pass, fail, crash, hang, or come too late: each is one line, and the others go on."""

import sys
import time
from pathlib import Path

import pytest
from gpu_check.catalogue import STAGES, Stage
from gpu_check.page import page_of
from gpu_check.results import CheckResult, StageResult
from gpu_check.runner import Run, run_stages


def _stage(name: str, limit_s: float = 60.0, **changes) -> Stage:
    return Stage(name, f"the {name} one", limit_s, package="stand_in_stages", **changes)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    (tmp_path / "work").mkdir()
    return Run("none", tmp_path, time.monotonic() + 60)


def test_every_way_to_end(run):
    told: list[StageResult] = []
    stages = [_stage(name) for name in ("good", "faulty", "absent")] + [_stage("crashing", alone=True)]
    results = run_stages(stages, run, told.append)
    assert [result.name for result in results] == ["good", "faulty", "absent", "crashing"]
    assert {result.name: result.status for result in told} == {
        "good": "passed",
        "faulty": "failed",
        "absent": "skipped",
        "crashing": "crashed",
    }
    good, faulty, absent, crashing = results
    assert (good.figures[0].row, good.figures[0].value, good.problems) == ("answer", 42, ())
    assert faulty.problems == ("one and one is not three", "the card is full")
    assert absent.problems == ("no such library here",)
    assert crashing.problems == ("signal 11: the last words",)
    assert crashing.figures[0].row == "before"
    check = CheckResult(device="none", made_at="2026-01-01", versions={}, seconds=1.0, stages=tuple(results))
    page = page_of(check)
    assert "| crashing | the crashing one | crashed |" in page
    assert "| answer | 42 |" in page


def test_one_that_hangs_is_cut_with_what_it_started(run):
    stages = [_stage("hanging", limit_s=2.0), _stage("good")]
    hanging, good = run_stages(stages, run, lambda _result: None)
    assert hanging.status == "timed out"
    assert hanging.problems == ("cut after 2 s; see hanging.log",)
    (child,) = hanging.figures
    assert _has_ended(child.value)
    assert good.status == "passed"


def _has_ended(process_id: int) -> bool:
    """Also as long as whoever inherited it has not asked how it ended."""
    stat = Path(f"/proc/{process_id}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_no_time_is_left(run):
    late = Run("none", run.out, time.monotonic() - 1)
    (result,) = run_stages([_stage("good")], late, lambda _result: None)
    assert (result.status, result.seconds) == ("timed out", 0.0)
    assert "--minutes" in result.problems[0]


@pytest.mark.parametrize("alone", [True, False])
def test_an_interrupt_ends_what_is_running(alone, run):
    """Also what runs beside it, which the interrupted thread does not wait for itself."""

    def interrupt(_result) -> None:
        raise KeyboardInterrupt

    stages = [_stage("good"), _stage("hanging", alone=alone)]
    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_stages(stages, run, interrupt)
    assert time.monotonic() - started_s < 30
    assert not [path for path in Path("/proc").glob("[0-9]*") if b"stand_in_stages" in _command_of(path)]


def _command_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_folder_with_spaces(run):
    spaced = Run("none", run.out / "two words", run.deadline_s)
    spaced.out.mkdir()
    (result,) = run_stages([_stage("good")], spaced, lambda _result: None)
    assert result.status == "passed"
    assert "--out '" in result.command


def test_nowhere_to_write(run):
    """Of the log; the other stages go on."""
    (run.out / "good.log").mkdir()
    good, absent = run_stages([_stage("good"), _stage("absent")], run, lambda _result: None)
    assert good.status == "crashed"
    assert good.problems[0].startswith("cannot be run (Is a directory): ")
    assert absent.status == "skipped"


def test_the_catalogue_has_every_module():
    folder = Path(sys.modules["gpu_check.catalogue"].__file__).parent / "stages"
    assert {stage.name for stage in STAGES} == {path.stem for path in folder.glob("[a-z]*.py")}
