"""What a run says while it goes on: the live table, and lines in a log."""

import pytest
from rich.console import Console

from step.reporter import Reporter
from step.training.run_log import RunLog


@pytest.fixture
def shown(tmp_path):
    """A log that is not open, and what its table shows."""
    console = Console(width=120)
    log = RunLog(tmp_path, total=10, reporter=Reporter(), is_first=False)

    def text():
        with console.capture() as capture:
            console.print(log.renderable())
        return capture.get()

    return log, text


def test_losses_are_means_over_the_last_updates(shown):
    log, text = shown
    assert log.line() == "update 0 of 10, epoch 1, rate 0"
    for update, value in enumerate((1.0, 2.0), 1):
        log.losses(update, 0, 0.1, [[value, 0.5, 0.0]])
    assert "update 2 of 10, epoch 1, rate 0.1, " in text()
    assert "updates/s, 0:00 left" in text()
    assert text().split("\n")[-3].split() == ["1", "1.5000", "0.5000", "0.0000"]
    assert log.line().startswith("update 2 of 10, epoch 1, rate 0.1, ")
    assert log.line().endswith(" updates/s, 0:00 left, loss 2.0000")


def test_an_evaluation_shows_how_far_it_is(shown):
    log, text = shown
    log.evaluating(4, 20)
    assert "evaluating clip 4 of 20" in text()
    assert log.line() == "update 0 of 10, epoch 1, rate 0, evaluating clip 4 of 20"
    log.evaluating(20, 20)
    assert "evaluating" not in text()
