"""Results of a benchmark that nobody ran."""

from step_runtime.benchmark.configurations import BenchConfiguration
from step_runtime.benchmark.results import BenchSubject, Results
from step_runtime.benchmark.rounds import Row


def make_row(name="onnxruntime", times_ms=(10.0, 11.0, 12.0, 10.0), *, configuration=None, **measured):
    """A row of a backend, with a round for each time."""
    fields = {"model": "m", "backend": name, "precision": "fp32", "loop": "fused"} | (configuration or {})
    return Row(BenchConfiguration(**fields), rounds_s=[[time_ms / 1e3] for time_ms in times_ms], **measured)


def make_results(*rows, **subject):
    """A benchmark of these rows."""
    return Results.of(list(rows), BenchSubject(**subject))
