"""How many processes load clips."""

import pytest

from step.training.samples.loading import affordable_workers


@pytest.mark.parametrize(
    ("wanted", "processes", "expected", "said"),
    [
        (0, 1, 0, []),
        (4, 1, 4, []),
        (8, 1, 4, ["data.workers is 8; 4 will load clips, because CPUs are 4"]),
        (8, 2, 2, ["data.workers is 8; 2 will load clips, because CPUs are 4, for 2 that train"]),
        (1, 8, 1, []),
    ],
)
def test_workers_are_no_more_than_the_cpus(wanted, processes, expected, said, monkeypatch):
    monkeypatch.setattr("step.training.samples.loading.available_cpus", lambda: 4)
    lines: list[str] = []
    assert affordable_workers(wanted, processes=processes, say=lines.append) == expected
    assert lines == said
