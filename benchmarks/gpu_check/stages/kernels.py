"""Stage: the plugins' tests on a GPU; compute-sanitizer has a stage of its own."""

from gpu_check.gpu_tests import run_gpu_tests
from gpu_check.stage import Report, StageOptions, run_stage


def measure(report: Report, options: StageOptions) -> None:
    """See `run_gpu_tests`."""
    run_gpu_tests(report, options, ["tests/plugins"])


if __name__ == "__main__":
    run_stage("kernels", measure)
