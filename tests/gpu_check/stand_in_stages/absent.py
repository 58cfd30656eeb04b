"""Has nothing to check."""

from gpu_check.stage import Report, StageOptions, StageSkippedError, run_stage


def measure(report: Report, options: StageOptions) -> None:
    raise StageSkippedError("no such library here")


if __name__ == "__main__":
    run_stage("absent", measure)
