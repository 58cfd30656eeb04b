"""pytest's GPU tests as a stage: each test's outcome, and why a failed one failed."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from gpu_check.stage import Report, StageOptions, StageSkippedError
from step.errors import StepError

_ROOT = Path(__file__).resolve().parents[2]
_END_S = 3.0  # before the stage's own limit, so that what is known by then is reported
_OUTCOME = re.compile(r"^\S+::(\S.*?) (PASSED|FAILED|SKIPPED|ERROR)\b", re.MULTILINE)  # a line of pytest -v


def run_gpu_tests(report: Report, options: StageOptions, paths: Sequence[str]) -> None:
    """Runs the tests marked `gpu` of some files or folders; without a GPU they are only collected.

    Args:
        report: takes a row for each outcome, and a problem for each test that failed.
        options: of the stage.
        paths: from the project's folder.

    Raises:
        StageSkippedError: every test was skipped, and why.
        StepError: pytest could not run, or was cut.
    """
    results = options.work / f"{Path(paths[0]).stem}-{len(paths)}.xml"
    # Other versions of other libraries than ours may warn of what we cannot change, and plugins that the project's own
    # options are for may be missing.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-W", "default"]
    command += ["-o", "addopts=--import-mode=importlib", f"--junitxml={results}", *paths]
    command += ["-q", "--collect-only"] if options.device == "none" else ["-v"]
    results.unlink(missing_ok=True)
    limit_s = max(options.left_s - _END_S, 1)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # so that a run that is cut has said what it did
    try:
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
        sys.stdout.write(said)
        read_cut_outcomes(report, said)
        raise StepError(f"pytest was cut after {limit_s:.0f} s") from error
    sys.stdout.write(done.stdout + done.stderr)
    if options.device == "none":
        found = sum("::" in line for line in done.stdout.splitlines())
        report.figure("tests that a GPU would run", found, "tests")
        report.check(done.returncode == 0 and found > 0, f"pytest ended with {done.returncode}: {_last(done.stdout)}")
        return
    if not results.is_file():
        raise StepError(f"pytest ended with {done.returncode}: {_last(done.stdout + done.stderr)}")
    read_outcomes(report, results.read_text())
    report.check(done.returncode in (0, 1), f"pytest ended with {done.returncode}: {_last(done.stdout)}")


def read_outcomes(report: Report, xml: str) -> None:
    """Adds the outcome of every test in a JUnit file, and its seconds.

    Raises:
        StageSkippedError: every test was skipped.
    """
    cases = list(ElementTree.fromstring(xml).iter("testcase"))
    skipped: list[str] = []
    for case in cases:
        name = str(case.get("name"))
        outcome = "passed"
        for kind in ("failure", "error", "skipped"):
            found = case.find(kind)
            if found is None:
                continue
            outcome = "failed" if kind == "error" else {"failure": "failed"}.get(kind, kind)
            said = " ".join(str(found.get("message")).split())
            if kind == "skipped":
                skipped.append(said)
            else:
                report.problem(f"{name}: {said[:400]}")
        report.figure(name, outcome, "outcome", table="tests")
        report.figure(name, float(case.get("time", 0)), "seconds", table="tests")
    if cases and len(skipped) == len(cases):
        raise StageSkippedError(skipped[0])


def read_cut_outcomes(report: Report, said: str) -> None:
    """Adds the outcome of every test that `pytest -v` had reported before it was cut, which has no JUnit file."""
    for name, word in _OUTCOME.findall(said):
        outcome = {"ERROR": "failed"}.get(word, word.lower())
        report.figure(name, outcome, "outcome", table="tests")
        report.check(outcome != "failed", f"{name}: failed; why is not known, since pytest was cut")


def _last(text: str) -> str:
    return ([line for line in text.splitlines() if line.strip()] or ["it said nothing"])[-1]
