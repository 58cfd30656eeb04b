"""pytest's own report as a stage's."""

import pytest
from gpu_check.gpu_tests import read_outcomes
from gpu_check.results import StageResult
from gpu_check.stage import Report, StageSkippedError

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


def test_all_of_them_skipped(tmp_path):
    xml = '<testsuites><testcase name="t" time="0"><skipped message="no GPU"/></testcase></testsuites>'
    with pytest.raises(StageSkippedError, match="no GPU"):
        read_outcomes(Report(tmp_path / "r.json", "r"), xml)
