"""Passes."""

from gpu_check.stage import run_stage

if __name__ == "__main__":
    run_stage("good", lambda report, options: report.figure("answer", 42, "units"))
