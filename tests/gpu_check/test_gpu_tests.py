"""pytest's own report as a stage's."""

from pathlib import Path

import pytest
from gpu_check.gpu_tests import read_cut_outcomes, read_outcomes
from gpu_check.results import StageResult
from gpu_check.stage import Report, StageSkippedError
from gpu_check.stages import engines
from helpers import ROOT

FAILED = """<testsuites><testsuite>
<testcase name="test_one[a]" time="0.5"/>
<testcase name="test_two" time="1.0"><failure message="assert 1 == 2&#10; where 1 = f()">trace</failure></testcase>
<testcase name="test_three" time="0.0"><skipped message="no sm_90"/></testcase>
<testcase name="test_four" time="0.0"><error message="fixture failed"/></testcase>
</testsuite></testsuites>"""


def test_every_outcome_is_a_row(tmp_path):
    report = Report(tmp_path / "r.json", "r")
    read_outcomes(report, FAILED)
    result = StageResult.model_validate_json((tmp_path / "r.json").read_bytes())
    outcomes = {figure.row: figure.value for figure in result.figures if figure.column == "outcome"}
    assert outcomes == {"test_one[a]": "passed", "test_two": "failed", "test_three": "skipped", "test_four": "failed"}
    assert result.problems == ("test_two: assert 1 == 2 where 1 = f()", "test_four: fixture failed")


def test_what_a_run_that_was_cut_had_said(tmp_path):
    said = """tests/a/test_b.py::test_one[fp32 plugins-x] PASSED                 [ 10%]
tests/a/test_b.py::test_two SKIPPED (no sm_90)                  [ 20%]
tests/a/test_b.py::test_three ERROR                             [ 30%]
tests/a/test_b.py::test_four """
    report = Report(tmp_path / "r.json", "r")
    read_cut_outcomes(report, said)
    result = StageResult.model_validate_json((tmp_path / "r.json").read_bytes())
    outcomes = {figure.row: figure.value for figure in result.figures}
    assert outcomes == {"test_one[fp32 plugins-x]": "passed", "test_two": "skipped", "test_three": "failed"}
    assert result.problems == ("test_three: failed; why is not known, since pytest was cut",)


def test_every_file_with_gpu_tests_belongs_to_a_stage():
    marked = {path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()}
    marked -= {Path(__file__)}
    assert {str(path.relative_to(ROOT)) for path in marked if path.parent.name != "plugins"} == set(engines.PATHS)


def test_figures_that_json_does_not_have(tmp_path):
    report = Report(tmp_path / "r.json", "r")
    report.figure("loss", float("nan"))
    report.figure("ratio", float("-inf"))
    result = StageResult.model_validate_json((tmp_path / "r.json").read_bytes())
    assert [figure.value for figure in result.figures] == ["nan", "-inf"]


def test_all_of_them_skipped(tmp_path):
    xml = '<testsuites><testcase name="t" time="0"><skipped message="no GPU"/></testcase></testsuites>'
    with pytest.raises(StageSkippedError, match="no GPU"):
        read_outcomes(Report(tmp_path / "r.json", "r"), xml)
