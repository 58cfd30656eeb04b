"""Stage: compute-sanitizer on every variant of both kernels, at sizes that fill no tile."""

import shutil
import subprocess
import sys
from pathlib import Path

import gpu_kernels

from gpu_check.stage import Report, StageOptions, StageSkippedError, run_stage

_TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_LAST_LINES = 3


def measure(report: Report, options: StageOptions) -> None:
    """Adds one row for each tool: errors found, seconds.

    Raises:
        StageSkippedError: no GPU, one that it cannot watch, or no compute-sanitizer, which comes with the CUDA toolkit.
    """
    sanitizer = shutil.which("compute-sanitizer")
    if options.device == "none":
        cases = [*gpu_kernels.roi_align_cases(gpu_kernels.SMALL_SIZES), *gpu_kernels.nms_cases()]
        report.figure("variants", len(cases), "launches")
        raise StageSkippedError("there is no GPU whose memory compute-sanitizer could watch")
    if sanitizer is None:
        raise StageSkippedError("compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
    for tool in _TOOLS:
        command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, gpu_kernels.__file__]
        if tool == "memcheck":
            # cuda-bindings asks an older driver for calls of newer ones, which it answers with an error each.
            command[3:3] = ["--report-api-errors", "no"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=max(options.left_s - 2, 1), check=False
            )
        except subprocess.TimeoutExpired:
            report.problem(f"{tool} was cut: no time")
            continue
        lines = [line.removeprefix("========= ") for line in done.stdout.splitlines() if line.startswith("=========")]
        if any("Device not supported" in line for line in lines):
            raise StageSkippedError("compute-sanitizer does not support this GPU, or this kind of virtual machine")
        Path(options.work / f"sanitizer-{tool}.log").write_text(done.stdout + done.stderr)
        report.figure(tool, (lines or ["it said nothing"])[-1], "found")
        said = "; ".join([line for line in lines if "COMPUTE-SANITIZER" not in line][:_LAST_LINES])
        report.check(done.returncode == 0, f"{tool}: exit code {done.returncode}: {said or _last(done.stderr)}")


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    run_stage("sanitizer", measure)
