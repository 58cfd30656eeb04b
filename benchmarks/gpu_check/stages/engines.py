"""Stage: real engines on a real GPU, where a TensorRT is installed: the project's own GPU tests."""

from step_runtime.backends.gpus import find_gpu

from gpu_check.gpu_tests import run_gpu_tests
from gpu_check.stage import Report, StageOptions, StageSkippedError, run_stage
from step.bundles.engines import RTX_DEFAULT_TARGETS
from step.bundles.libraries import LIBRARIES, Library, load_library
from step.errors import StepError

PATHS = ("tests/runtime/backends/test_gpu.py", "tests/runtime/backends/test_backends.py")


def measure(report: Report, options: StageOptions) -> None:
    """Finds which libraries run here, and runs every GPU test outside of the plugins'.

    Raises:
        StageSkippedError: neither library runs here, and why.
        StepError: see `run_gpu_tests`.
    """
    problems = {library: _problem(library) for library in LIBRARIES}
    for library, problem in problems.items():
        report.figure(library, problem or "runs here", "found", table="libraries")
    if options.device == "cuda" and all(problems.values()):
        raise StageSkippedError("; ".join(filter(None, problems.values())))
    run_gpu_tests(report, options, PATHS)


def _problem(library: Library) -> str | None:
    """Says why a library does not run here."""
    try:
        load_library(library)
        gpu = find_gpu("auto")
    except StepError as error:
        return str(error)
    if library == "tensorrt-rtx" and gpu.capability not in RTX_DEFAULT_TARGETS:
        return f"tensorrt-rtx does not run on {gpu.name} ({gpu.capability})"
    return None


if __name__ == "__main__":
    run_stage("engines", measure)
