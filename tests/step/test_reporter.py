"""What commands say: which lines at which verbosity, where to, and progress in a log and on a terminal."""

import io
import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from step.progress import Progress
from step.reporter import Reporter, libraries_heard
from step.shown import make_console


class _Log(io.StringIO):
    """A log file; tests wait until a number of lines have come."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def write(self, text: str) -> int:
        with self._changed:
            count = super().write(text)
            self._changed.notify_all()
        return count

    def wait_for_lines(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.getvalue().count("\n") >= count, timeout=20)


class _Clock:
    """Shows the time that a test sets, in seconds."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _reporter(verbosity="normal", *, is_terminal=False):
    log = _Log()
    console = make_console(file=log, force_terminal=is_terminal, width=120, color_system=None, _environ={})
    return Reporter(verbosity, console=console, line_every_s=0.001), log


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        ("quiet", "error: bad\n"),
        ("normal", "a [b]note[/]\nwarning: odd\nerror: bad\n"),
        ("verbose", "a [b]note[/]\na detail\nwarning: odd\nerror: bad\n"),
    ],
)
def test_what_is_said(verbosity, expected):
    reporter, log = _reporter(verbosity)
    reporter.note("a [b]note[/]")
    reporter.detail("a detail")
    for _ in range(2):
        reporter.warning("odd")
    reporter.error("bad")
    assert log.getvalue() == expected


def test_all_but_results_is_on_standard_error(capsys):
    reporter = Reporter("quiet")
    reporter.result("[a] result " + "long " * 40)
    reporter.error("an\nerror " + "long " * 40)
    out, err = capsys.readouterr()
    assert out == "[a] result " + "long " * 40 + "\n"
    assert err == "error: an error" + " long" * 40 + "\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_names_are_harmless(is_terminal):
    reporter, log = _reporter(is_terminal=is_terminal)
    reporter.note("v\x1b[2J.mp4")
    reporter.warning("v\x1b[2J.mp4")
    reporter.error("v\x1b[2J.mp4")
    assert log.getvalue().count("v\\x1b[2J.mp4") == 3
    assert "\x1b[2J" not in log.getvalue()


def test_progress_in_a_log():
    reporter, log = _reporter()
    with reporter.progress("decoding [clips]", 4, "clips") as progress:
        progress.update(3)
        log.wait_for_lines(2)
    first, *_, last = log.getvalue().splitlines()
    assert first.startswith("decoding [clips]: ")
    assert " of 4 clips" in first
    assert last.startswith("decoding [clips]: 3 clips in 0:0")


def test_short_work_leaves_no_line_in_a_log():
    log = _Log()
    reporter = Reporter(console=make_console(file=log), line_every_s=60)
    with reporter.progress("decoding", 4, "clips") as progress:
        progress.advance()
    assert log.getvalue() == ""


def test_progress_is_quiet():
    reporter, log = _reporter("quiet")
    threads = threading.active_count()
    with reporter.progress("decoding", 4):
        assert threading.active_count() == threads
    assert log.getvalue() == ""


def test_progress_ends_with_what_it_is_about():
    reporter, _ = _reporter()
    threads = threading.active_count()
    with pytest.raises(ValueError, match="broken"), reporter.progress("decoding"):
        raise ValueError("broken")
    assert threading.active_count() == threads


def test_progress_on_a_terminal_within_progress():
    reporter, log = _reporter(is_terminal=True)
    with reporter.progress("outer", 2, "videos") as outer:
        outer.advance()
        with reporter.progress("inner", 3, "frames"):
            reporter.note("a note")
    shown = log.getvalue()
    assert "1 of 2 videos" in shown
    assert "0 of 3 frames" in shown
    assert "a note\n" in shown
    assert shown.count("outer") > 1  # drawn again


def test_words_of_progress():
    clock = _Clock()
    progress = Progress("decoding", clock=clock)
    assert progress.line() == "decoding: 0:00 so far"
    clock.now_s += 10
    progress.update(20)
    assert progress.line() == "decoding: 20, 2/s, 0:10 so far"
    progress.update(20, 7220, status="loss 0.5")
    assert progress.line() == "decoding: 20 of 7220, 2/s, 1:00:00 left, loss 0.5"
    progress.advance(0.5)
    assert progress.last_line() == "decoding: 20.5 in 0:10, 2.05/s, loss 0.5"
    phases = Progress("loading", clock=clock)
    clock.now_s += 3
    phases.update(description="exporting")
    clock.now_s += 4
    assert phases.line() == "exporting: 0:07 so far"
    assert phases.last_line() == "exporting: ended after 0:07"
    progress.update(description="evaluating")
    assert progress.last_line() == "evaluating: 20.5 in 0:00, loss 0.5"
    fast = Progress("reading", 1000, "rows", clock=clock)
    clock.now_s += 1
    fast.update(500)
    assert fast.line() == "reading: 500 of 1000 rows, 500 rows/s, 0:01 left"


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        ("quiet", ""),
        ("normal", "warning: odd value\nwarning: old driver\n"),
        ("verbose", "warning: odd value\nwarning: f is deprecated\nwarning: old driver\n"),
    ],
)
def test_libraries_warn_once_in_our_style(verbosity, expected):
    reporter, log = _reporter(verbosity)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with libraries_heard(reporter):
            for _ in range(2):
                warnings.warn("odd value", UserWarning, stacklevel=1)
                warnings.warn("f is deprecated", FutureWarning, stacklevel=1)
            logging.getLogger("library").warning("old %s", "driver")
            logging.getLogger("library").info("loaded")
    assert log.getvalue() == expected
    assert warnings.showwarning is before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_one_line(tmp_path):
    (tmp_path / "t.csv").write_text("a,0902,0,0,1,1,12\n")
    command = [sys.executable, "-m", "step.data.cli", "check", "t.csv", "-q"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "error: standard output cannot be written: No space left on device; send it to another place\n"
    assert (done.returncode, done.stderr) == (1, said)
