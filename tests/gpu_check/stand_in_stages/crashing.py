"""Ends as a library's bug ends it."""

import os
import signal

from gpu_check.stage import Report, StageOptions, run_stage


def measure(report: Report, options: StageOptions) -> None:
    report.figure("before", 1)
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


if __name__ == "__main__":
    run_stage("crashing", measure)
