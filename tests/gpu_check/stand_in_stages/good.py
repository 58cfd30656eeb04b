"""Passes."""

from gpu_check.stage import Report, StageOptions, run_stage


def measure(report: Report, options: StageOptions) -> None:
    report.figure("answer", 42, "units")


if __name__ == "__main__":
    run_stage("good", measure)
