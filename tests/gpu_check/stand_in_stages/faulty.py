"""Finds two faults, and an error that it expects."""

from gpu_check.stage import Report, StageOptions, run_stage

from step.errors import StepError


def measure(report: Report, options: StageOptions) -> None:
    report.check(1 + 1 == 3, "one and one\nis not three")
    report.figure("looked at", options.device)
    raise StepError("the card is full")


if __name__ == "__main__":
    run_stage("faulty", measure)
